//! The judge of containers: one function over what is asked for and over what the daemon says it made.
//!
//! It knows what every field of a host configuration must be. Whatever it does not know must be left alone, so that
//! a field of a later API opens nothing.

use std::fmt;

use bollard::models::{ContainerCreateBody, ContainerInspectResponse, HostConfig, MountPoint};
use serde_json::{Map, Value, json};

use super::filter;
use super::profile::{PROGRAM_DIR, SOCKET_DIR, USER, WORK};

/// Largest `/dev/shm`, in bytes.
const SHM_BYTES_MAX: u64 = 64 << 20;
/// The daemon's usual masks must stay where it names them.
const MASKED: [&str; 3] = ["/proc/kcore", "/proc/keys", "/sys/firmware"];
const READ_ONLY: [&str; 2] = ["/proc/sys", "/proc/sysrq-trigger"];

/// Where a container is not what it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drift {
    /// The field, as the daemon's API names it.
    pub field: String,
    /// What it is, shortened.
    pub found: String,
    /// What it must be.
    pub right: &'static str,
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is `{}`: it must be {}", self.field, self.found, self.right)
    }
}

/// A container, asked for or made.
#[derive(Clone, Copy, Debug)]
pub struct Container<'a> {
    user: Option<&'a str>,
    host: Option<&'a HostConfig>,
    /// What is mounted in one that was made.
    mounts: &'a [MountPoint],
    /// The runtime that is expected, if not the daemon's default.
    runtime: Option<&'a str>,
}

impl<'a> Container<'a> {
    /// One that is asked for.
    #[must_use]
    pub fn asked(body: &'a ContainerCreateBody, runtime: Option<&'a str>) -> Self {
        Self { user: body.user.as_deref(), host: body.host_config.as_ref(), mounts: &[], runtime }
    }

    /// One that the daemon made.
    #[must_use]
    pub fn made(inspected: &'a ContainerInspectResponse, runtime: Option<&'a str>) -> Self {
        let user = inspected.config.as_ref().and_then(|config| config.user.as_deref());
        let mounts = inspected.mounts.as_deref().unwrap_or_default();
        Self { user, host: inspected.host_config.as_ref(), mounts, runtime }
    }
}

/// Finds every way in which a container is less shut off than the profile says.
///
/// # Errors
/// All of them.
pub fn assert_hardened(container: &Container<'_>) -> Result<(), Vec<Drift>> {
    let mut drifts = Vec::new();
    let user = container.user.unwrap_or_default();
    if user != USER {
        drifts.push(drift("User", &json!(user), "10001:10001"));
    }
    let host = container.host.map(|host| serde_json::to_value(host).unwrap_or_default()).unwrap_or_default();
    let host = host.as_object().cloned().unwrap_or_default();
    let named = REQUIRED.iter().copied();
    let other = host.keys().map(String::as_str).filter(|name| !REQUIRED.contains(name));
    for name in named.chain(other) {
        let value = host.get(name).unwrap_or(&Value::Null);
        if let Err(right) = judge(name, value, &host, container.runtime) {
            drifts.push(drift(&format!("HostConfig.{name}"), value, right));
        }
    }
    let stray = container.mounts.iter().filter(|mount| !is_ours(mount));
    drifts.extend(
        stray.map(|mount| drift("Mounts", &json!(mount), "the socket's directory and the runner, read-only")),
    );
    if drifts.is_empty() { Ok(()) } else { Err(drifts) }
}

/// What must be there; the rest may be absent.
const REQUIRED: [&str; 16] = [
    "CapDrop",
    "CgroupnsMode",
    "Dns",
    "IpcMode",
    "LogConfig",
    "Memory",
    "MemorySwap",
    "Mounts",
    "NanoCpus",
    "NetworkMode",
    "PidsLimit",
    "ReadonlyRootfs",
    "SecurityOpt",
    "ShmSize",
    "Tmpfs",
    "Ulimits",
];

fn judge(
    name: &str,
    value: &Value,
    host: &Map<String, Value>,
    runtime: Option<&str>,
) -> Result<(), &'static str> {
    let (is_right, right) = match name {
        "CapDrop" => (*value == json!(["ALL"]), "[\"ALL\"]"),
        "CgroupnsMode" | "IpcMode" => (value == "private", "private"),
        "Dns" => (*value == json!(["127.0.0.1"]), "[\"127.0.0.1\"]"),
        "LogConfig" => (is_bounded_log(value), "a json-file with max-size and max-file"),
        "Memory" | "NanoCpus" | "PidsLimit" => (value.as_i64().is_some_and(|most| most > 0), "a limit"),
        "MemorySwap" => (host.get("Memory") == Some(value), "the same as Memory, so that there is no swap"),
        "Mounts" => (are_ours(value), "the socket's directory and the runner, read-only and private"),
        "NetworkMode" => (value == "none", "none"),
        "ReadonlyRootfs" => (*value == json!(true), "true"),
        "SecurityOpt" => (is_confined(value), "no-new-privileges and our seccomp profile, and nothing else"),
        "ShmSize" => (value.as_u64().is_some_and(|size| size <= SHM_BYTES_MAX), "64 MiB at most"),
        "Tmpfs" => (is_bounded_tmpfs(value), "/tmp and /workspace, each with nosuid, nodev and a size"),
        "Ulimits" => (has_limits(value), "a limit of open files, and no core dumps"),
        "OomScoreAdj" => (value.as_i64().is_some_and(|score| score >= 0), "0 to 1000"),
        "RestartPolicy" => (matches!(value["Name"].as_str(), None | Some("" | "no")), "no restart"),
        "Runtime" => (is_runtime(value, runtime), "the runtime that was asked for"),
        "MaskedPaths" => (holds(value, &MASKED), "the daemon's default"),
        "ReadonlyPaths" => (holds(value, &READ_ONLY), "the daemon's default"),
        _ => (is_void(value), "left alone"),
    };
    if is_right { Ok(()) } else { Err(right) }
}

fn is_bounded_log(value: &Value) -> bool {
    let config = &value["Config"];
    value["Type"] == "json-file" && config["max-size"].is_string() && config["max-file"].is_string()
}

fn are_ours(value: &Value) -> bool {
    let is_ours = |mount: &Value| {
        mount["Type"] == "bind"
            && mount["ReadOnly"] == true
            && mount["BindOptions"]["Propagation"] == "rprivate"
            && is_target(mount["Target"].as_str().unwrap_or_default())
    };
    value.as_array().is_some_and(|mounts| mounts.len() == 2 && mounts.iter().all(is_ours))
}

fn is_target(target: &str) -> bool {
    let program = target.strip_prefix(PROGRAM_DIR).and_then(|rest| rest.strip_prefix('/'));
    target == SOCKET_DIR || program.is_some_and(|name| !name.is_empty() && !name.contains(['/', '.']))
}

fn is_ours(mount: &MountPoint) -> bool {
    let target = mount.destination.as_deref().unwrap_or_default();
    match mount.typ.as_deref() {
        Some("bind") => mount.rw == Some(false) && is_target(target),
        Some("tmpfs") => true,
        _ => false,
    }
}

fn is_confined(value: &Value) -> bool {
    let options: Vec<&str> = value.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let [first, second] = options[..] else { return false };
    let profile = second.strip_prefix("seccomp=").and_then(|text| serde_json::from_str::<Value>(text).ok());
    first == "no-new-privileges:true"
        && profile.is_some()
        && profile == serde_json::from_str(&filter::TEXT).ok()
}

fn is_bounded_tmpfs(value: &Value) -> bool {
    let Some(mounts) = value.as_object() else { return false };
    let is_bounded = |options: &Value| {
        let options: Vec<&str> = options.as_str().unwrap_or_default().split(',').collect();
        options.contains(&"nosuid")
            && options.contains(&"nodev")
            && options.iter().any(|option| option.starts_with("size="))
    };
    mounts.contains_key("/tmp") && mounts.contains_key(WORK) && mounts.values().all(is_bounded)
}

fn has_limits(value: &Value) -> bool {
    let limit = |name: &str| {
        let found = value.as_array().into_iter().flatten().find(|limit| limit["Name"] == name);
        found.and_then(|limit| limit["Hard"].as_i64())
    };
    limit("core") == Some(0) && limit("nofile").is_some_and(|most| most > 0)
}

fn is_runtime(value: &Value, wanted: Option<&str>) -> bool {
    let found = value.as_str().unwrap_or_default();
    match wanted {
        Some(wanted) => found == wanted,
        // The daemon names its default.
        None => matches!(found, "" | "runc" | "crun" | "io.containerd.runc.v2"),
    }
}

fn holds(value: &Value, paths: &[&str]) -> bool {
    let held: Vec<&str> = value.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    paths.iter().all(|path| held.contains(path))
}

/// Nothing, in any of the ways in which it is said.
fn is_void(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(is_set) => !is_set,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.iter().all(is_void),
        Value::Object(fields) => fields.values().all(is_void),
    }
}

fn drift(field: &str, found: &Value, right: &'static str) -> Drift {
    let found = found.as_str().map_or_else(|| found.to_string(), str::to_owned);
    Drift { field: field.to_owned(), found: found.chars().take(100).collect(), right }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use bollard::models::{ContainerConfig, MountPoint};

    use super::super::profile;
    use super::super::resolve::Image;
    use super::*;
    use crate::{Id, Instance, Labels, Resources, Runner, Spec};

    fn request() -> ContainerCreateBody {
        let spec = Spec {
            id: Id::new("one").expect("legal"),
            labels: Labels::default(),
            socket: PathBuf::from("/tmp/hypercode-0/one/s"),
            image: None,
            resources: Resources::default(),
            orphan_grace_ms: 1_000,
            runner: Runner::new(PathBuf::from("/usr/bin/hypercode")),
        };
        let image = Image { id: "sha256:00".to_owned(), volumes: vec!["/data".to_owned()] };
        profile::request(&spec, &image, &Instance::new("00c0ffee").expect("legal"), None).expect("UTF-8")
    }

    fn judged(change: impl FnOnce(&mut Value)) -> Result<(), Vec<Drift>> {
        let mut body = request();
        let mut host = serde_json::to_value(&body.host_config).expect("JSON");
        change(&mut host);
        body.host_config = serde_json::from_value(host).expect("a host configuration");
        assert_hardened(&Container::asked(&body, None))
    }

    #[test]
    fn what_the_profile_asks_for_is_hardened() {
        assert_eq!(judged(|_| {}), Ok(()));
    }

    /// T30: whatever a user might want of the host.
    #[test]
    fn every_way_to_loosen_it_is_named() {
        let ways = [
            ("Privileged", json!(true)),
            ("NetworkMode", json!("host")),
            ("NetworkMode", json!("bridge")),
            ("PidMode", json!("host")),
            ("IpcMode", json!("host")),
            ("IpcMode", json!("shareable")),
            ("UTSMode", json!("host")),
            ("UsernsMode", json!("host")),
            ("CgroupnsMode", json!("host")),
            ("CgroupParent", json!("/")),
            ("CapAdd", json!(["SYS_ADMIN"])),
            ("CapDrop", json!([])),
            ("CapDrop", json!(["NET_RAW"])),
            ("Binds", json!(["/:/host"])),
            ("Binds", json!(["/var/run/docker.sock:/var/run/docker.sock"])),
            ("VolumesFrom", json!(["other"])),
            ("VolumeDriver", json!("nfs")),
            ("Devices", json!([{"PathOnHost": "/dev/mem", "PathInContainer": "/dev/mem"}])),
            ("DeviceCgroupRules", json!(["a *:* rwm"])),
            ("DeviceRequests", json!([{"Driver": "nvidia"}])),
            ("SecurityOpt", json!(["no-new-privileges:true", "seccomp=unconfined"])),
            ("SecurityOpt", json!(["no-new-privileges:false", format!("seccomp={}", *filter::TEXT)])),
            (
                "SecurityOpt",
                json!([
                    "no-new-privileges:true",
                    format!("seccomp={}", *filter::TEXT),
                    "apparmor=unconfined"
                ]),
            ),
            (
                "SecurityOpt",
                json!(["no-new-privileges:true", "seccomp={\"defaultAction\": \"SCMP_ACT_ALLOW\"}"]),
            ),
            ("ReadonlyRootfs", json!(false)),
            ("Sysctls", json!({"net.ipv4.ip_forward": "1"})),
            ("ExtraHosts", json!(["host:host-gateway"])),
            ("Links", json!(["other"])),
            ("GroupAdd", json!(["docker"])),
            ("PortBindings", json!({"80/tcp": [{"HostPort": "80"}]})),
            ("PublishAllPorts", json!(true)),
            ("RestartPolicy", json!({"Name": "always"})),
            ("AutoRemove", json!(true)),
            ("OomKillDisable", json!(true)),
            ("OomScoreAdj", json!(-1000)),
            ("Memory", json!(0)),
            ("MemorySwap", json!(-1)),
            ("NanoCpus", json!(0)),
            ("PidsLimit", json!(-1)),
            ("Ulimits", json!([])),
            ("ShmSize", json!(1u64 << 40)),
            ("Tmpfs", json!({"/tmp": "rw,size=1m", "/workspace": "rw,nosuid,nodev"})),
            ("Tmpfs", json!({"/tmp": "rw,nosuid,nodev,size=1m"})),
            ("LogConfig", json!({"Type": "syslog", "Config": {"syslog-address": "udp://10.0.0.1"}})),
            ("LogConfig", json!({"Type": "json-file", "Config": {}})),
            ("Dns", json!(["8.8.8.8"])),
            ("DnsSearch", json!(["example.org"])),
            ("Runtime", json!("kata")),
            ("MaskedPaths", json!([])),
            ("ReadonlyPaths", json!([])),
            ("StorageOpt", json!({"size": "100G"})),
            ("Mounts", json!([{"Type": "bind", "Source": "/", "Target": "/host", "ReadOnly": true}])),
            ("Init", json!(true)),
        ];
        for (field, value) in ways {
            let drifts = judged(|host| host[field] = value.clone()).expect_err(&format!("{field}: {value}"));
            let named = drifts.iter().any(|drift| drift.field == format!("HostConfig.{field}"));
            assert!(named, "{field}: {value} gives {drifts:?}");
        }
    }

    #[test]
    fn a_mount_that_can_be_written_or_lies_elsewhere_is_found() {
        for change in [
            |mount: &mut Value| mount["ReadOnly"] = json!(false),
            |mount: &mut Value| mount["BindOptions"]["Propagation"] = json!("rshared"),
            |mount: &mut Value| mount["Target"] = json!("/etc"),
            |mount: &mut Value| mount["Target"] = json!("/hypercode/../etc/x"),
            |mount: &mut Value| mount["Type"] = json!("volume"),
        ] {
            judged(|host| change(&mut host["Mounts"][0])).expect_err("it is found");
        }
    }

    #[test]
    fn the_same_judge_looks_at_what_was_made() {
        let body = request();
        let mut made = ContainerInspectResponse {
            config: Some(ContainerConfig { user: body.user.clone(), ..ContainerConfig::default() }),
            host_config: body.host_config,
            ..ContainerInspectResponse::default()
        };
        assert_eq!(assert_hardened(&Container::made(&made, None)), Ok(()));
        let volume = MountPoint {
            typ: Some("volume".to_owned()),
            destination: Some("/data".to_owned()),
            rw: Some(true),
            ..MountPoint::default()
        };
        made.mounts = Some(vec![volume]);
        let drifts = assert_hardened(&Container::made(&made, None)).expect_err("a volume");
        assert_eq!(drifts[0].field, "Mounts");
        made.mounts = None;
        made.config = None;
        let drifts = assert_hardened(&Container::made(&made, None)).expect_err("root");
        assert_eq!((drifts[0].field.as_str(), drifts[0].found.as_str()), ("User", ""));
    }
}
