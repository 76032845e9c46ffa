//! A profile can ask for nothing of the host: whatever names it is refused with the field's path.

use hypercode_manifest::parse;

/// What containers could be given by those who run them.
const FIELDS: [&str; 23] = [
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

/// A runtime is chosen by its name alone, from those that whoever runs the daemon put there.
#[test]
fn a_runtime_class_is_a_name_of_the_spec() {
    let faults = |line: &str| {
        let text = format!(
            "apiVersion: hypercode.dev/v1\nkind: Profile\nmetadata: {{name: one}}\nspec:\n{line}\n  handler: \
             {{command: [agent]}}\n---\napiVersion: hypercode.dev/v1\nkind: Pool\nmetadata: {{name: two}}\nspec:\n{line}\n"
        );
        parse("both.yaml", text.as_bytes()).faults
    };
    assert!(faults("  runtimeClass: io.containerd.runsc.v1").is_empty());
    for bad in ["/usr/bin/runc", "--privileged", "\"\"", "a b", "[runc]"] {
        let faults = faults(&format!("  runtimeClass: {bad}"));
        assert_eq!(faults.len(), 2, "{bad}: {faults:?}");
        assert!(faults.iter().all(|fault| fault.path == "spec.runtimeClass"), "{bad}: {faults:?}");
    }
}
