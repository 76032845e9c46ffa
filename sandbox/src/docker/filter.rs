//! The table of allowed system calls, as the daemon takes it.

use std::sync::LazyLock;

use serde_json::{Value, json};

use crate::seccomp::{ABSENT, ALLOWED, ALLOWED_HERE, Argument, CONDITIONAL};

/// The profile as text: the daemon takes the text itself, not the name of a file.
pub(super) static TEXT: LazyLock<String> = LazyLock::new(|| profile().to_string());

fn profile() -> Value {
    let names: Vec<&str> = ALLOWED.iter().chain(ALLOWED_HERE).map(|call| call.name).collect();
    let mut calls = vec![json!({"names": names, "action": "SCMP_ACT_ALLOW"})];
    for conditional in CONDITIONAL {
        let cases = conditional.cases.iter().map(|case| {
            let arguments: Vec<Value> = case.iter().map(argument).collect();
            json!({"names": [conditional.call.name], "action": "SCMP_ACT_ALLOW", "args": arguments})
        });
        calls.extend(cases);
    }
    calls.push(json!({"names": [ABSENT.name], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::ENOSYS}));
    let architecture = format!("SCMP_ARCH_{}", std::env::consts::ARCH.to_ascii_uppercase());
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": libc::EPERM,
        "archMap": [{"architecture": architecture, "subArchitectures": []}],
        "syscalls": calls,
    })
}

fn argument(argument: &Argument) -> Value {
    let Argument { index, mask, value } = argument;
    json!({"index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"})
}
