"""Tries to get out of a sandbox, as its first process. What came of each try is a line of the file `outcome`."""

import ctypes, errno, json, os, resource, signal, socket, stat, struct, subprocess, sys, time

libc = ctypes.CDLL(None, use_errno=True)
told = json.load(open("/run/hypercode/told.json"))
lines = []


def note(name, result):
    lines.append(f"{name}: {result}")


def attempt(name, action):
    """What came of it: the error's name, or `done`."""
    try:
        result = action()
        note(name, "done" if result is None else result)
    except OSError as error:
        note(name, errno.errorcode.get(error.errno, error.errno))


def call(number, *arguments):
    """A system call by its number, on x86-64."""

    def action():
        if libc.syscall(number, *arguments) < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))

    return action


def calls():
    new_user, here = 0x10000000, ctypes.create_string_buffer(b"/tmp")
    for name, action in {
        "unshare a user namespace": call(272, new_user),
        "clone into a user namespace": call(56, new_user | signal.SIGCHLD, 0, 0, 0, 0),
        "clone3": call(435, 0, 0),
        "setns": call(308, 0, 0),
        "mount": call(165, b"none", here, b"tmpfs", 0, 0),
        "fsopen": call(430, b"tmpfs", 0),
        "open_tree": call(428, -100, b"/usr", 1),
        "umount": call(166, here, 0),
        "pivot_root": call(155, here, here),
        "chroot": call(161, here),
        "mknod a disk": call(133, b"/tmp/disk", stat.S_IFBLK | 0o600, 254 << 8),
        "ptrace": call(101, 0, 0, 0, 0),
        "process_vm_readv": call(310, 1, 0, 0, 0, 0, 0),
        "pidfd_getfd": call(438, 0, 0, 0),
        "keyctl": call(250, 0, -3, 0),
        "add_key": call(248, b"user", b"x", b"x", 1, -2),
        "bpf": call(321, 0, 0, 0),
        "perf_event_open": call(298, 0, 0, -1, -1, 0),
        "userfaultfd": call(323, 0),
        "io_uring_setup": call(425, 1, 0),
        "open_by_handle_at": call(304, -100, 0, 0),
        "kexec_load": call(246, 0, 0, 0, 0),
        "init_module": call(175, 0, 0, b""),
        "swapon": call(167, here, 0),
        "reboot": call(169, 0, 0, 0, 0),
        "syslog": call(103, 3, 0, 0),
        "clock_settime": call(227, 0, 0),
        "quotactl": call(179, 0, 0, 0, 0),
        "acct": call(163, 0),
        "iopl": call(172, 3),
        "become root": lambda: os.setuid(0),
        "name the host": lambda: socket.sethostname("mine"),
        "packet socket": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close(),
        "raw socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close(),
        "vsock socket": lambda: socket.socket(40, socket.SOCK_STREAM).close(),
        "alg socket": lambda: socket.socket(38, socket.SOCK_SEQPACKET).close(),
        "audit netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 9).close(),
    }.items():
        attempt(name, action)


def network():
    def connect(family, address):
        with socket.socket(family, socket.SOCK_STREAM) as peer:
            peer.settimeout(5)
            peer.connect(address)

    for name, address in {"loopback": "127.0.0.1", "host": told["address"], "outside": "192.0.2.1", "metadata": "169.254.169.254"}.items():
        attempt(f"connect to {name}", lambda: connect(socket.AF_INET, (address, told["port"])))
    attempt("connect to an abstract socket", lambda: connect(socket.AF_UNIX, "\0" + told["abstract"]))
    attempt("connect to its own link", lambda: connect(socket.AF_UNIX, "/run/hypercode/s"))
    attempt("connect to another's link", lambda: connect(socket.AF_UNIX, told["other"]))
    note("devices", " ".join(name for _, name in socket.if_nameindex()))


def files():
    for path in ["/x", "/usr/x", "/etc/passwd", "/bin/sh", "/dev/x", "/run/x", "/run/hypercode/x", "/run/runner/x", "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/sysrq-trigger", "/sys/fs/cgroup/x"]:
        attempt(f"write {path}", lambda: os.close(os.open(path, os.O_WRONLY | os.O_CREAT)))
    attempt("remove its link", lambda: os.unlink("/run/hypercode/s"))
    attempt("replace its link", lambda: os.rename("/workspace/mine", "/run/hypercode/s"))
    for path in ["/root", "/home", "/etc/shadow", "/var/lib", "/boot", "/sys/kernel", "/dev/mem", "/dev/kmsg", told["secret"]]:
        attempt(f"see {path}", lambda: os.stat(path) and None)
    attempt("read /proc/kcore", lambda: len(open("/proc/kcore", "rb").read(1)))
    attempt("read /proc/keys", lambda: len(open("/proc/keys", "rb").read(1)))
    loose = [line.split()[4] for line in open("/proc/self/mountinfo") if "nosuid" not in line.split()[5].split(",")]
    note("mounts that honour setuid", " ".join(loose) or "none")


def processes():
    note("processes", " ".join(name for name in os.listdir("/proc") if name.isdigit()))
    note("parent", os.getppid())
    attempt("signal the host", lambda: os.kill(told["pid"], 0))
    attempt("read its own environment", lambda: " ".join(sorted(os.environ)))
    known = any(told["secret"].encode() in open(f"/proc/1/{name}", "rb").read() for name in ("environ", "cmdline"))
    note("the host's paths in its environment", known)


def forks():
    children = []
    try:
        while len(children) < 5000:
            child = os.fork()
            if child == 0:
                time.sleep(600)
            children.append(child)
        note("forks", "unlimited")
    except OSError as error:
        note("forks", f"{errno.errorcode[error.errno]} {len(children)}")
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def space():
    chunk = b"x" * (1 << 16)

    def fill(path):
        size = 0
        try:
            with open(path, "wb", buffering=0) as file:
                while size < 1 << 30:
                    size += file.write(chunk)
            return "unlimited"
        except OSError as error:
            return f"{errno.errorcode[error.errno]} {size >> 20}"
        finally:
            os.unlink(path)

    for path in ["/tmp/x", "/dev/shm/x"]:
        note(f"fill {path}", fill(path))
    made = 0
    try:
        while made < 100_000:
            os.close(os.open(f"/tmp/{made}", os.O_CREAT | os.O_WRONLY))
            made += 1
        note("files", "unlimited")
    except OSError as error:
        note("files", f"{errno.errorcode[error.errno]} {made}")


def memory():
    """Several processes, each of them within its bounds, and all of them together not."""
    for _ in range(4):
        if os.fork() == 0:
            held = [b"x" * (1 << 20) for _ in range(60)]
            open("/dev/null").close()
            time.sleep(600 if held else 0)
    ended = os.wait()[1]
    note("memory", signal.Signals(os.WTERMSIG(ended)).name if os.WIFSIGNALED(ended) else ended)


def flood():
    for stream in (1, 2):
        try:
            for _ in range(1 << 14):
                os.write(stream, b"x" * (1 << 16))
            note(f"flood {stream}", "done")
        except OSError as error:
            note(f"flood {stream}", errno.errorcode[error.errno])


def daemon():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
            os.execvp("tail", ["tail", "-f", "/run/runner/" + os.path.basename(sys.argv[0])])
        os._exit(0)
    os.wait()
    while not any("tail" in open(f"/proc/{pid}/comm").read() for pid in os.listdir("/proc") if pid.isdigit()):
        time.sleep(0.01)
    sys.exit(0)


open("/workspace/mine", "w").close()
for name in told["attacks"]:
    globals()[name]()
with open("/workspace/fresh", "w") as file:
    file.write("".join(f"{line}\n" for line in lines))
os.rename("/workspace/fresh", "/workspace/outcome")
while True:
    try:
        os.wait()
    except ChildProcessError:
        time.sleep(600)
