//! Whose process it is that speaks from the other end of a socket.

use std::fs;

/// Whether the process is in the container: a control group of it is named by the container's id
/// (proc_pid_cgroup(5)), which nothing in a container can change.
pub(super) fn is_in(pid: u32, container: &str) -> bool {
    !container.is_empty()
        && fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|groups| names(&groups, container))
}

fn names(groups: &str, container: &str) -> bool {
    let paths = groups.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    paths.flat_map(|path| path.split('/')).any(|part| {
        // As the two drivers of the daemon name them: `cgroupfs` and `systemd`.
        part == container
            || part.strip_prefix("docker-").and_then(|rest| rest.strip_suffix(".scope")) == Some(container)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_known_by_its_whole_id() {
        let id = "4".repeat(64);
        for groups in [
            format!("12:pids:/docker/{id}\n1:name=systemd:/docker/{id}\n0::/docker/{id}\n"),
            format!("0::/system.slice/docker-{id}.scope\n"),
            format!("0::/docker/{id}/below\n"),
        ] {
            assert!(names(&groups, &id), "{groups}");
            assert!(!names(&groups, &id[..63]), "{groups}");
        }
        assert!(!names("0::/user.slice\n", &id));
        assert!(!is_in(std::process::id(), ""), "a container without an id holds nobody");
    }
}
