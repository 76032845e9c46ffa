//! What the command line takes.

use clap::CommandFactory as _;

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split(' '))
}

#[test]
fn the_definition_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn the_documented_lines_are_understood() {
    for line in [
        "hypercode validate a.yaml b.yaml",
        "hypercode crew plan crew.yaml",
        "hypercode crew assemble crew.yaml --idempotency-key k1",
        "hypercode crew scale code-health analyst=5",
        "hypercode crew disband code-health --reason done",
        "hypercode crew drain code-health --grace 10m",
        "hypercode kill agent ag_1 --reason leaks",
        "hypercode kill crew code-health",
        "hypercode kill tenant default",
        "hypercode agent logs ag_1 --follow",
        "hypercode agent logs ag_1 --incarnation 2",
        "hypercode crew resume code-health --tokens 4000000 --messages 20000 --wall-time 4h",
        "hypercode agent list --crew code-health --output json",
        "hypercode demo --path /tmp --chaos",
        "hypercode up --listen 127.0.0.1:0 --data-dir d",
        "hypercode projection rebuild audit",
        "hypercode handler check -- python3 a.py",
        "hypercode handler check --child {\"score\":1} --output json -- python3 a.py",
        "hypercode task submit code-health report --wait --deadline 10m --to analyst[2]",
        "hypercode task submit code-health --input {\"a\":1} --file README.md --file b --context cx1",
        "hypercode task result tk_1 --out results",
        "hypercode approval answer tk_1 key 42",
        "hypercode audit tail --follow --kind task_completed",
        "hypercode audit verify --offline --data-dir /tmp/x",
        "hypercode audit verify bundle.tar --key k --against mine",
        "hypercode audit export --out evidence.tar --from 5 --to 9 --format ocsf",
        "hypercode audit checkpoint --cut --save mine",
        "hypercode audit prove 7 --out 7.tlog-proof",
        "hypercode replay --to 2026-11-23T01:30:00Z --all",
        "hypercode replay bundle.tar --entity task/tk_1",
        "hypercode replay log.db --diff 5 9",
        "hypercode replay --check",
        "hypercode replay log.db --to 7 --skip-unknown",
        "hypercode artifact get artifact:sha256:00 --out f",
        "hypercode token mint --role auditor --role viewer --principal user:carol --expires 12h",
        "hypercode token revoke 0011223344556677 --reason lost",
        "hypercode role grant user:carol operator",
        "hypercode audit access --at 2026-11-23T01:30:00Z",
        "hypercode schema crew",
        "hypercode --set drain_ms=5 --server http://127.0.0.1:1 whoami",
    ] {
        if let Err(error) = parse(line) {
            panic!("{line}: {error}");
        }
    }
}

#[test]
fn wrong_lines_are_refused() {
    for line in [
        "hypercode",
        "hypercode crew scale code-health analyst",
        "hypercode task submit",
        "hypercode task submit c t --deadline soon",
        "hypercode task submit c --input {",
        "hypercode schema suite",
        "hypercode crew list --output xml",
        "hypercode replay --diff 5",
        "hypercode handler check --child { -- a",
        "hypercode replay --to yesterday",
        "hypercode replay --check --to 5",
        "hypercode audit export",
        "hypercode --set drain_ms whoami",
    ] {
        assert!(parse(line).is_err(), "{line}");
    }
}
