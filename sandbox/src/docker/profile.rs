//! The hardened profile: what the daemon is asked for, and nothing else can be asked for.
//!
//! No network at all, no capabilities, no way to gain any, a short list of system calls, a read-only root, and two
//! things from the host: the directory of the link's socket and the runner's file, both read-only.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig, Mount,
    MountBindOptions, MountBindOptionsPropagationEnum, MountType, ResourcesUlimits, RestartPolicy,
    RestartPolicyNameEnum,
};

use super::resolve::Image;
use super::{filter, labels};
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
    runtime: Option<&str>,
) -> Result<ContainerCreateBody, Error> {
    let socket = Path::new(SOCKET_DIR).join(spec.socket.file_name().unwrap_or_default());
    let runner = Path::new(PROGRAM_DIR).join(&spec.runner.argv0);
    let grace = spec.orphan_grace_ms.to_string();
    let arguments: [&str; 8] = [
        "--socket",
        text(&socket)?,
        "--sandbox",
        spec.id.as_str(),
        "--work",
        WORK,
        "--orphan-grace-ms",
        &grace,
    ];
    let program = spec.runner.program.canonicalize().unwrap_or_else(|_| spec.runner.program.clone());
    Ok(ContainerCreateBody {
        image: Some(image.id.clone()),
        user: Some(USER.to_owned()),
        entrypoint: Some(vec![text(&runner)?.to_owned()]),
        cmd: Some(arguments.map(str::to_owned).to_vec()),
        working_dir: Some(WORK.to_owned()),
        env: Some(environment(image)),
        labels: Some(labels::of(spec, text(&program)?, instance)),
        // Whatever the image says: nothing else is ever run in it.
        healthcheck: Some(HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() }),
        host_config: Some(host(spec, bind(&program, &runner)?, image, runtime)?),
        ..ContainerCreateBody::default()
    })
}

fn host(spec: &Spec, runner: Mount, image: &Image, runtime: Option<&str>) -> Result<HostConfig, Error> {
    let socket_dir = spec.socket.parent().unwrap_or_else(|| Path::new("/"));
    let limits = limits(&spec.resources);
    Ok(HostConfig {
        network_mode: Some("none".to_owned()),
        // Not even the daemon's own resolver, should the image bring a resolv.conf.
        dns: Some(vec!["127.0.0.1".to_owned()]),
        mounts: Some(vec![bind(socket_dir, Path::new(SOCKET_DIR))?, runner]),
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
        runtime: runtime.map(str::to_owned),
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
