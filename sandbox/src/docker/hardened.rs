//! The judge of containers: one function over what is asked for and over what the daemon says it made.
//!
//! It knows what every field of a host configuration must be. Whatever it does not know must be left alone, so that
//! a field of a later API opens nothing.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use bollard::models::{ContainerCreateBody, ContainerInspectResponse, HostConfig, MountPoint};
use serde_json::{Map, Value, json};

use super::network::Part;
use super::profile::{ENVIRONMENT, FORWARDING, PROGRAM_DIR, SOCKET_DIR, USER, WORK};
use super::{filter, labels, profile};

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
#[derive(Clone, Debug)]
pub struct Candidate<'a> {
    user: Option<&'a str>,
    host: Option<&'a HostConfig>,
    environment: &'a [String],
    /// What the labels say it sees of the host: the directory that is mounted where the socket is, and the runner's file.
    sources: Option<(PathBuf, PathBuf)>,
    /// The runtime that its labels name, if not the daemon's default.
    runtime: Option<&'a str>,
    /// What the labels say it is in its sandbox.
    part: Part,
    /// The one network that it may be on.
    network: String,
    /// What only one that was made has.
    made: Option<Made<'a>>,
}

#[derive(Clone, Debug)]
struct Made<'a> {
    mounts: &'a [MountPoint],
    networks: Vec<&'a str>,
}

impl<'a> Candidate<'a> {
    /// One that is asked for.
    #[must_use]
    pub fn asked(body: &'a ContainerCreateBody) -> Self {
        let environment = body.env.as_deref().unwrap_or_default();
        Self::new(body.user.as_deref(), body.host_config.as_ref(), environment, body.labels.as_ref())
    }

    /// One that the daemon made.
    #[must_use]
    pub fn made(inspected: &'a ContainerInspectResponse) -> Self {
        let config = inspected.config.as_ref();
        let networks = inspected.network_settings.as_ref().and_then(|network| network.networks.as_ref());
        let made = Made {
            mounts: inspected.mounts.as_deref().unwrap_or_default(),
            networks: networks.into_iter().flat_map(|networks| networks.keys().map(String::as_str)).collect(),
        };
        let user = config.and_then(|config| config.user.as_deref());
        let environment = config.and_then(|config| config.env.as_deref()).unwrap_or_default();
        let labels = config.and_then(|config| config.labels.as_ref());
        Self { made: Some(made), ..Self::new(user, inspected.host_config.as_ref(), environment, labels) }
    }

    fn new(
        user: Option<&'a str>,
        host: Option<&'a HostConfig>,
        environment: &'a [String],
        labels: Option<&'a HashMap<String, String>>,
    ) -> Self {
        let part = labels.map_or(Part::Alone, labels::part);
        let network = match part {
            Part::Alone => None,
            Part::Agent(_) => labels.and_then(labels::sandbox),
            Part::Relay(_) => labels.and_then(labels::beside),
        };
        Self {
            user,
            host,
            environment,
            sources: labels.and_then(sources),
            runtime: labels.and_then(labels::runtime),
            part,
            network: network.map_or_else(|| "none".to_owned(), |id| id.to_string()),
            made: None,
        }
    }

    /// The file of the host that belongs at this path, if any does.
    fn source(&self, target: &str) -> Option<&Path> {
        let (socket_dir, runner) = self.sources.as_ref()?;
        let program = target.strip_prefix(PROGRAM_DIR).and_then(|rest| rest.strip_prefix('/'));
        match program {
            _ if target == SOCKET_DIR => Some(socket_dir),
            Some(name) if !name.is_empty() && !name.contains(['/', '.']) => Some(runner),
            _ => None,
        }
    }
}

fn sources(map: &HashMap<String, String>) -> Option<(PathBuf, PathBuf)> {
    Some((profile::entrance(&labels::socket(map)?, labels::part(map)), PathBuf::from(labels::runner(map)?)))
}

/// Finds every way in which a container is less shut off than the profile says.
///
/// # Errors
/// All of them.
pub fn assert_hardened(candidate: &Candidate<'_>) -> Result<(), Vec<Drift>> {
    let mut drifts = Vec::new();
    let user = candidate.user.unwrap_or_default();
    if user != USER {
        drifts.push(drift("User", &json!(user), "10001:10001"));
    }
    let stray = candidate.environment.iter().find(|variable| !is_ours(variable));
    drifts.extend(stray.map(|variable| drift("Env", &json!(variable), "the runner's own, and PATH")));
    let host = candidate.host.map(|host| serde_json::to_value(host).unwrap_or_default()).unwrap_or_default();
    let host = host.as_object().cloned().unwrap_or_default();
    let masks = if candidate.made.is_some() { &MASKS[..] } else { &[] };
    let named: Vec<&str> = REQUIRED.iter().chain(masks).copied().collect();
    let other = host.keys().map(String::as_str).filter(|name| !named.contains(name));
    for name in named.iter().copied().chain(other) {
        let value = host.get(name).unwrap_or(&Value::Null);
        if let Err(right) = judge(name, value, &host, candidate) {
            drifts.push(drift(&format!("HostConfig.{name}"), value, right));
        }
    }
    if let Some(made) = &candidate.made {
        let stray = made.mounts.iter().filter(|mount| !is_mounted_right(mount, candidate));
        let right = "the socket's directory and the runner, read-only";
        drifts.extend(stray.map(|mount| drift("Mounts", &json!(mount), right)));
        let stray = made.networks.iter().filter(|network| **network != candidate.network);
        let right = "none, or the sandbox's own";
        drifts.extend(stray.map(|network| drift("NetworkSettings.Networks", &json!(network), right)));
    }
    if drifts.is_empty() { Ok(()) } else { Err(drifts) }
}

/// What must be there; the rest may be absent.
const REQUIRED: [&str; 17] = [
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
    "Sysctls",
    "Tmpfs",
    "Ulimits",
];

/// What the daemon adds to what it made.
const MASKS: [&str; 2] = ["MaskedPaths", "ReadonlyPaths"];

fn judge(
    name: &str,
    value: &Value,
    host: &Map<String, Value>,
    candidate: &Candidate<'_>,
) -> Result<(), &'static str> {
    let (is_right, right) = match name {
        "CapDrop" => (*value == json!(["ALL"]), "[\"ALL\"]"),
        "CgroupnsMode" | "IpcMode" => (value == "private", "private"),
        "Dns" => (*value == json!(["127.0.0.1"]), "[\"127.0.0.1\"]"),
        "LogConfig" => (is_bounded_log(value), "a json-file with max-size and max-file"),
        "Memory" | "NanoCpus" | "PidsLimit" => (value.as_i64().is_some_and(|most| most > 0), "a limit"),
        "MemorySwap" => (host.get("Memory") == Some(value), "the same as Memory, so that there is no swap"),
        "Mounts" => {
            (are_right(value, candidate), "the socket's directory and the runner, read-only and private")
        }
        "NetworkMode" => (value == candidate.network.as_str(), "none, or the sandbox's own"),
        "ReadonlyRootfs" => (*value == json!(true), "true"),
        "SecurityOpt" => (is_confined(value), "no-new-privileges and our seccomp profile, and nothing else"),
        "ShmSize" => (value.as_u64().is_some_and(|size| size <= SHM_BYTES_MAX), "64 MiB at most"),
        "Sysctls" if matches!(candidate.part, Part::Relay(_)) => {
            (*value == json!({FORWARDING.0: FORWARDING.1}), "no forwarding, and nothing else")
        }
        "Tmpfs" => (is_bounded_tmpfs(value), "/tmp and /workspace, each with nosuid, nodev and a bound"),
        "Ulimits" => (has_limits(value), "a limit of open files, and no core dumps"),
        "OomScoreAdj" => (value.as_i64().is_some_and(|score| score >= 0), "0 to 1000"),
        "RestartPolicy" => (matches!(value["Name"].as_str(), None | Some("" | "no")), "no restart"),
        "Runtime" => (is_runtime(value, candidate.runtime), "the runtime that was asked for"),
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

/// A variable of the runner's own, one that is taken away from the image, or the search path.
fn is_ours(variable: &str) -> bool {
    match variable.split_once('=') {
        Some((name, _)) => name == "PATH" || ENVIRONMENT.iter().any(|(own, _)| *own == name),
        None => true,
    }
}

fn are_right(value: &Value, candidate: &Candidate<'_>) -> bool {
    let is_right = |mount: &Value| {
        mount["Type"] == "bind"
            && mount["ReadOnly"] == true
            && mount["BindOptions"]["Propagation"] == "rprivate"
            && is_from(mount["Source"].as_str(), mount["Target"].as_str(), candidate)
    };
    value.as_array().is_some_and(|mounts| mounts.len() == 2 && mounts.iter().all(is_right))
}

fn is_from(source: Option<&str>, target: Option<&str>, candidate: &Candidate<'_>) -> bool {
    let (Some(source), Some(target)) = (source, target) else { return false };
    candidate.source(target) == Some(Path::new(source))
}

fn is_mounted_right(mount: &MountPoint, candidate: &Candidate<'_>) -> bool {
    match mount.typ.as_deref() {
        Some("bind") => {
            mount.rw == Some(false)
                && is_from(mount.source.as_deref(), mount.destination.as_deref(), candidate)
        }
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
        let bounds = |name| options.iter().filter_map(move |option| option.strip_prefix(name));
        options.contains(&"nosuid")
            && options.contains(&"nodev")
            && bounds("size=").count() > 0
            && bounds("size=").chain(bounds("nr_inodes=")).all(is_bound)
    };
    mounts.contains_key("/tmp") && mounts.contains_key(WORK) && mounts.values().all(is_bounded)
}

/// A number that is not zero, which would mean that there is no bound (tmpfs(5)).
fn is_bound(text: &str) -> bool {
    text.trim_end_matches(['k', 'm', 'g']).parse::<u64>().is_ok_and(|bound| bound > 0)
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

    use bollard::models::{ContainerConfig, EndpointSettings, NetworkSettings};

    use super::super::resolve::Image;
    use super::*;
    use crate::{Id, Instance, Labels, Resources, Runner, Spec};

    fn request_of(part: Part) -> ContainerCreateBody {
        let spec = Spec {
            id: Id::new("one").expect("legal"),
            labels: Labels::default(),
            socket: PathBuf::from("/tmp/hypercode-0/one/s"),
            image: None,
            resources: Resources::default(),
            orphan_grace_ms: 1_000,
            runner: Runner::new(PathBuf::from("/usr/bin/hypercode")),
            runtime: None,
        };
        let image =
            Image { id: "sha256:00".to_owned(), volumes: vec!["/data".to_owned()], variables: Vec::new() };
        let instance = Instance::new("00c0ffee").expect("legal");
        profile::request(&spec, &image, &instance, part).expect("UTF-8")
    }

    fn request() -> ContainerCreateBody {
        request_of(Part::Alone)
    }

    fn judged(change: impl FnOnce(&mut Value)) -> Result<(), Vec<Drift>> {
        let mut body = request();
        let mut host = serde_json::to_value(&body.host_config).expect("JSON");
        change(&mut host);
        body.host_config = serde_json::from_value(host).expect("a host configuration");
        assert_hardened(&Candidate::asked(&body))
    }

    #[test]
    fn what_the_profile_asks_for_is_hardened() {
        assert_eq!(judged(|_| {}), Ok(()));
    }

    /// On a network each part of a sandbox sees less of the host: the socket is the relay's alone.
    #[test]
    fn a_sandbox_on_a_network_of_its_own_is_hardened_too() {
        let subnet = "10.81.0.8/29".parse().unwrap();
        for part in [Part::Agent(subnet), Part::Relay(subnet)] {
            let body = request_of(part);
            assert_eq!(assert_hardened(&Candidate::asked(&body)), Ok(()));
            let host = body.host_config.as_ref().unwrap();
            let entrance = host.mounts.as_ref().unwrap()[0].source.as_deref();
            let is_relay = part == Part::Relay(subnet);
            let right = if is_relay { "/tmp/hypercode-0/one" } else { "/tmp/hypercode-0/one/boot" };
            assert_eq!(entrance, Some(right));
            for change in [
                |host: &mut HostConfig| host.network_mode = Some("another".to_owned()),
                |host: &mut HostConfig| host.network_mode = Some("none".to_owned()),
                |host: &mut HostConfig| {
                    host.sysctls = Some(HashMap::from([("net.ipv4.ip_forward".to_owned(), "1".to_owned())]));
                },
                |host: &mut HostConfig| {
                    host.mounts.as_mut().unwrap()[0].source = Some("/tmp/hypercode-0".to_owned());
                },
            ] {
                let mut loose = body.clone();
                change(loose.host_config.as_mut().unwrap());
                assert!(assert_hardened(&Candidate::asked(&loose)).is_err());
            }
        }
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
            ("Tmpfs", json!({"/tmp": "nosuid,nodev,size=1m", "/workspace": "nosuid,nodev,size=0"})),
            ("Tmpfs", json!({"/tmp": "nosuid,nodev,size=1m", "/workspace": "nosuid,nodev,size=1m,size=0"})),
            (
                "Tmpfs",
                json!({"/tmp": "nosuid,nodev,size=1m,nr_inodes=0", "/workspace": "nosuid,nodev,size=1m"}),
            ),
            ("Tmpfs", json!({"/tmp": "nosuid,nodev,size=50%", "/workspace": "nosuid,nodev,size=1m"})),
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
            |mount: &mut Value| mount["Source"] = json!("/"),
            |mount: &mut Value| mount["Source"] = json!("/var/run"),
            |mount: &mut Value| mount["Source"] = Value::Null,
            |mount: &mut Value| mount["Target"] = json!("/hypercode/../etc/x"),
            |mount: &mut Value| mount["Type"] = json!("volume"),
        ] {
            judged(|host| change(&mut host["Mounts"][0])).expect_err("it is found");
        }
    }

    /// What the daemon makes of the request.
    fn made() -> ContainerInspectResponse {
        let body = request();
        let mut host = body.host_config;
        if let Some(host) = &mut host {
            host.masked_paths = Some(MASKED.map(str::to_owned).to_vec());
            host.readonly_paths = Some(READ_ONLY.map(str::to_owned).to_vec());
        }
        let network = NetworkSettings {
            networks: Some(HashMap::from([("none".to_owned(), EndpointSettings::default())])),
            ..NetworkSettings::default()
        };
        let config = ContainerConfig {
            user: body.user,
            env: body.env,
            labels: body.labels,
            ..ContainerConfig::default()
        };
        ContainerInspectResponse {
            config: Some(config),
            host_config: host,
            network_settings: Some(network),
            ..ContainerInspectResponse::default()
        }
    }

    fn mount(typ: &str, source: &str, destination: &str) -> MountPoint {
        MountPoint {
            typ: Some(typ.to_owned()),
            source: Some(source.to_owned()),
            destination: Some(destination.to_owned()),
            rw: Some(false),
            ..MountPoint::default()
        }
    }

    fn found(made: &ContainerInspectResponse) -> Vec<String> {
        let judged = assert_hardened(&Candidate::made(made));
        judged.err().into_iter().flatten().map(|drift| drift.field).collect()
    }

    #[test]
    fn the_same_judge_looks_at_what_was_made() {
        assert_eq!(found(&made()), Vec::<String>::new());
        let mut mounted = made();
        mounted.mounts =
            Some(vec![mount("bind", "/tmp/hypercode-0/one", SOCKET_DIR), mount("tmpfs", "", "/tmp")]);
        assert_eq!(found(&mounted), Vec::<String>::new());
        for stray in [
            mount("volume", "/var/lib/docker/volumes/x", "/data"),
            mount("bind", "/var/run", SOCKET_DIR),
            mount("bind", "/tmp/hypercode-0/one", "/etc"),
        ] {
            let mut made = made();
            made.mounts = Some(vec![stray]);
            assert_eq!(found(&made), ["Mounts"]);
        }
        let mut root = made();
        root.config = root.config.map(|config| ContainerConfig { user: Some("0".to_owned()), ..config });
        assert_eq!(found(&root), ["User"]);
    }

    #[test]
    fn a_network_a_mask_or_a_variable_that_changed_is_found() {
        let mut connected = made();
        let networks = connected.network_settings.as_mut().and_then(|network| network.networks.as_mut());
        networks.expect("there is one").insert("bridge".to_owned(), EndpointSettings::default());
        assert_eq!(found(&connected), ["NetworkSettings.Networks"]);

        let mut bared = made();
        let host = bared.host_config.as_mut().expect("there is one");
        (host.masked_paths, host.readonly_paths) = (None, Some(Vec::new()));
        assert_eq!(found(&bared), ["HostConfig.MaskedPaths", "HostConfig.ReadonlyPaths"]);

        let mut preloaded = made();
        let config = preloaded.config.as_mut().expect("there is one");
        config.env = Some(vec!["PATH=/bin".to_owned(), "LD_PRELOAD=/x.so".to_owned()]);
        assert_eq!(found(&preloaded), ["Env"]);

        let mut unlabelled = made();
        unlabelled.config.as_mut().expect("there is one").labels = None;
        assert_eq!(found(&unlabelled), ["HostConfig.Mounts"], "nobody says what it may see");
    }
}
