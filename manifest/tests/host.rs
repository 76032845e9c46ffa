//! A profile can ask for nothing of the host: whatever names it is refused with the field's path.

use hypercode_manifest::parse;

/// What containers could be given by those who run them.
const FIELDS: [&str; 24] = [
    "privileged: true",
    "hostConfig: {}",
    "networkMode: host",
    "network: host",
    "volumes: [/:/host]",
    "binds: [/var/run/docker.sock:/var/run/docker.sock]",
    "mounts: []",
    "capAdd: [SYS_ADMIN]",
    "capabilities: {add: [ALL]}",
    "devices: [/dev/kvm]",
    "securityOpt: [seccomp=unconfined]",
    "securityContext: {privileged: true}",
    "pidMode: host",
    "ipcMode: host",
    "usernsMode: host",
    "user: root",
    "runtime: runc",
    "runtimeClass: kata",
    "sysctls: {}",
    "ulimits: {}",
    "extraHosts: []",
    "ports: [80]",
    "entrypoint: [/bin/sh]",
    "restart: always",
];

#[test]
fn nothing_of_the_host_can_be_asked_for() {
    for place in ["spec", "spec.handler", "spec.resources"] {
        for field in FIELDS {
            let (name, _) = field.split_once(':').expect("a field");
            let line = |at: &str, indent: &str| {
                if place == at { format!("{indent}{field}\n") } else { String::new() }
            };
            let text = format!(
                "apiVersion: hypercode.dev/v1\nkind: Profile\nmetadata: {{name: one}}\nspec:\n{}  handler:\n{}    \
                 command: [agent]\n  resources:\n{}    pids: 8\n",
                line("spec", "  "),
                line("spec.handler", "    "),
                line("spec.resources", "    "),
            );
            let parsed = parse("profile.yaml", text.as_bytes());
            let path = format!("{place}.{name}");
            assert!(parsed.has_errors(), "`{path}` is taken");
            assert!(parsed.faults.iter().any(|fault| fault.path == path), "{path}: {:?}", parsed.faults);
        }
    }
}
