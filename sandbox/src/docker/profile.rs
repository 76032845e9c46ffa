//! The hardened profile: what the daemon is asked for, and nothing else can be asked for.
//!
//! No network at all or one of its own, no capabilities, no way to gain any, a short list of system calls, a read-only
//! root, and two things from the host: the directory of the link's socket and the runner's file, both read-only.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig, Mount,
    MountBindOptions, MountBindOptionsPropagationEnum, MountType, ResourcesUlimits, RestartPolicy,
    RestartPolicyNameEnum,
};

use super::network::Part;
use super::resolve::Image;
use super::{filter, labels, network};
use crate::{Error, Instance, Resources, Spec};

/// The user that everything in a sandbox is: nobody's on the host.
pub const UID: u32 = 10_001;
/// The same with its group, as the daemon takes it.
pub(super) const USER: &str = "10001:10001";
/// Where a sandbox sees the directory of its socket.
pub(super) const SOCKET_DIR: &str = "/run/hypercode";
/// Where it sees the runner's file.
pub(super) const PROGRAM_DIR: &str = "/hypercode";
/// The runner's work directory.
pub(super) const WORK: &str = "/workspace";
/// The runner's environment, beside the image's search path.
pub(super) const ENVIRONMENT: [(&str, &str); 3] = [("HOME", WORK), ("TMPDIR", "/tmp"), ("LANG", "C.UTF-8")];

/// What keeps a relay from being a router between networks.
pub(super) const FORWARDING: (&str, &str) = ("net.ipv4.ip_forward", "0");

/// Size of `/tmp`, in MiB, and of what an image wants as a volume.
const SCRATCH_MIB: u64 = 16;
/// Files in each of them.
const SCRATCH_FILES: u64 = 1024;
/// Files in the work directory.
const WORK_FILES: u64 = 65_536;
/// Size of `/dev/shm`, in bytes.
const SHM_BYTES: i64 = 8 << 20;
/// The kernel's choice of whom to kill first when the whole host runs out of memory, up to 1000.
const OOM_SCORE_ADJ: i64 = 500;

/// The container that is to be made for `spec`, of an image that was resolved.
pub(super) fn request(
    spec: &Spec,
    image: &Image,
    instance: &Instance,
    part: Part,
) -> Result<ContainerCreateBody, Error> {
    let runner = Path::new(PROGRAM_DIR).join(&spec.runner.argv0);
    let program = spec.runner.program.canonicalize().unwrap_or_else(|_| spec.runner.program.clone());
    let labels = labels::of(spec, text(&program)?, instance, spec.runtime.as_deref(), part);
    Ok(ContainerCreateBody {
        image: Some(image.id.clone()),
        user: Some(USER.to_owned()),
        entrypoint: Some(vec![text(&runner)?.to_owned()]),
        cmd: Some(arguments(spec, part)?),
        working_dir: Some(WORK.to_owned()),
        env: Some(environment(image)),
        labels: Some(labels),
        // Whatever the image says: nothing else is ever run in it.
        healthcheck: Some(HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() }),
        host_config: Some(host(spec, bind(&program, &runner)?, image, part)?),
        networking_config: part.place(&spec.id),
        ..ContainerCreateBody::default()
    })
}

/// What its program is told. Nothing of it is secret: the daemon shows it to whoever may ask.
fn arguments(spec: &Spec, part: Part) -> Result<Vec<String>, Error> {
    let socket = Path::new(SOCKET_DIR).join(spec.socket.file_name().unwrap_or_default());
    let socket = text(&socket)?.to_owned();
    let named = |name: &str, value: String| [name.to_owned(), value];
    let runners = |socket| {
        [
            named("--socket", socket),
            named("--sandbox", spec.id.to_string()),
            named("--work", WORK.to_owned()),
            named("--orphan-grace-ms", spec.orphan_grace_ms.to_string()),
        ]
        .concat()
    };
    Ok(match part {
        Part::Alone => runners(socket),
        Part::Agent(subnet) => runners(format!("{}{}", link::bootstrap::TCP, network::door(subnet))),
        Part::Relay(subnet) => [
            named("--socket", socket),
            named("--listen", network::door(subnet).to_string()),
            named("--from", subnet.agent().to_string()),
        ]
        .concat(),
    })
}

/// The directory of the host that a container sees where the socket is: who comes over a network does not see the
/// socket, but what lets it in.
pub(super) fn entrance(socket: &Path, part: Part) -> PathBuf {
    let directory = socket.parent().unwrap_or_else(|| Path::new("/"));
    match part {
        Part::Agent(_) => directory.join(link::bootstrap::DIRECTORY),
        Part::Alone | Part::Relay(_) => directory.to_owned(),
    }
}

fn host(spec: &Spec, runner: Mount, image: &Image, part: Part) -> Result<HostConfig, Error> {
    let limits = limits(&spec.resources);
    let forwarding = |(name, value): (&str, &str)| HashMap::from([(name.to_owned(), value.to_owned())]);
    Ok(HostConfig {
        network_mode: Some(part.subnet().map_or_else(|| "none".to_owned(), |_| spec.id.to_string())),
        // Not even the daemon's own resolver, should the image bring a resolv.conf.
        dns: Some(vec!["127.0.0.1".to_owned()]),
        sysctls: matches!(part, Part::Relay(_)).then(|| forwarding(FORWARDING)),
        mounts: Some(vec![bind(&entrance(&spec.socket, part), Path::new(SOCKET_DIR))?, runner]),
        cap_drop: Some(vec!["ALL".to_owned()]),
        security_opt: Some(vec!["no-new-privileges:true".to_owned(), format!("seccomp={}", *filter::TEXT)]),
        readonly_rootfs: Some(true),
        tmpfs: Some(tmpfs(&spec.resources, image)),
        shm_size: Some(SHM_BYTES),
        ipc_mode: Some("private".to_owned()),
        cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
        oom_score_adj: Some(OOM_SCORE_ADJ),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(HashMap::from([
                ("max-size".to_owned(), "1m".to_owned()),
                ("max-file".to_owned(), "1".to_owned()),
            ])),
        }),
        // A restart would be a hidden second use (SB-1).
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            ..RestartPolicy::default()
        }),
        auto_remove: Some(false),
        privileged: Some(false),
        runtime: spec.runtime.clone(),
        ..limits
    })
}

/// The runner's environment. What the image sets is taken away, by a name without a value, but for the search path: a
/// variable such as `LD_PRELOAD` would have the runner do what the image says.
fn environment(image: &Image) -> Vec<String> {
    let is_kept = |name: &str| name == "PATH" || ENVIRONMENT.iter().any(|(own, _)| name == *own);
    let taken = image.variables.iter().filter(|name| !is_kept(name)).cloned();
    ENVIRONMENT.iter().map(|(name, value)| format!("{name}={value}")).chain(taken).collect()
}

/// The limits of a sandbox, as they are set at its creation.
fn limits(resources: &Resources) -> HostConfig {
    let memory = i64::try_from(resources.memory_bytes).unwrap_or(i64::MAX);
    let ulimit = |name: &str, most: u32| ResourcesUlimits {
        name: Some(name.to_owned()),
        soft: Some(most.into()),
        hard: Some(most.into()),
    };
    HostConfig {
        memory: Some(memory),
        // The same: no swap.
        memory_swap: Some(memory),
        nano_cpus: Some(i64::from(resources.cpu_millis) * 1_000_000),
        pids_limit: Some(resources.pids.into()),
        // Not `nproc`: it counts the processes of a user in all sandboxes together.
        ulimits: Some(vec![ulimit("nofile", resources.open_files), ulimit("core", 0)]),
        ..HostConfig::default()
    }
}

fn tmpfs(resources: &Resources, image: &Image) -> HashMap<String, String> {
    let (work, owner) = (resources.work_bytes, USER.replace(':', ",gid="));
    let scratch = format!("rw,nosuid,nodev,noexec,size={SCRATCH_MIB}m,nr_inodes={SCRATCH_FILES},mode=1777");
    // What the image declares to be a volume would be a directory of the host, without any bound.
    let mut mounts: HashMap<_, _> =
        image.volumes.iter().map(|path| (path.clone(), scratch.clone())).collect();
    mounts.insert("/tmp".to_owned(), scratch);
    let work = format!("rw,nosuid,nodev,exec,size={work},nr_inodes={WORK_FILES},mode=0700,uid={owner}");
    mounts.insert(WORK.to_owned(), work);
    mounts
}

fn bind(source: &Path, target: &Path) -> Result<Mount, Error> {
    Ok(Mount {
        typ: Some(MountType::BIND),
        source: Some(text(source)?.to_owned()),
        target: Some(text(target)?.to_owned()),
        read_only: Some(true),
        bind_options: Some(MountBindOptions {
            propagation: Some(MountBindOptionsPropagationEnum::RPRIVATE),
            ..MountBindOptions::default()
        }),
        ..Mount::default()
    })
}

/// The daemon's paths are JSON.
fn text(path: &Path) -> Result<&str, Error> {
    path.to_str().ok_or_else(|| Error::invalid("path", &path.to_string_lossy(), "UTF-8"))
}

/// Where a sandbox sees the work directory.
pub(super) fn work() -> PathBuf {
    PathBuf::from(WORK)
}
