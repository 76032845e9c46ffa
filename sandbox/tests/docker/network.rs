//! Sandboxes that come to the platform over TCP: what they reach, who is heard, and what becomes of all that is beside
//! them. `laws_over_tcp` holds them to the laws of the seam.

use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::Command;

use hypercode_sandbox::conformance::{Factory, assert_gone, exit_of, instance, spec, until, within, written};
use hypercode_sandbox::{Docker, Id, Peer, Provider, Spec, State, Tampering, prove};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;

use crate::faults::IDLE;
use crate::support::{Place, STUB, docker};

/// A provider over TCP, and one sandbox of it that runs.
async fn one(place: &Place) -> Option<(Docker, Spec)> {
    let provider = place.provider(&instance()).await?;
    let spec = spec(place, IDLE);
    let running = provider.create(&spec).await.unwrap();
    written(place, &running, "ready").await;
    Some((provider, spec))
}

fn relay(id: &Id) -> String {
    format!("{id}.relay")
}

/// Whether the daemon has anything of this sandbox.
fn is_left(id: &Id) -> bool {
    let has = |what: &[&str]| Command::new("docker").args(what).output().unwrap().status.success();
    has(&["inspect", id.as_str()])
        || has(&["inspect", &relay(id)])
        || has(&["network", "inspect", id.as_str()])
}

/// A socket as the gateway makes it, to which the relay may connect.
fn bind(spec: &Spec) -> UnixListener {
    use std::os::unix::fs::PermissionsExt as _;
    let listener = UnixListener::bind(&spec.socket).unwrap();
    std::fs::set_permissions(&spec.socket, std::fs::Permissions::from_mode(0o666)).unwrap();
    listener
}

/// Says in the work directory what it got through to. It is told of the host by a file beside its script.
const REACH: &str = r#"#!/usr/bin/env python3
import errno, json, os, socket, struct, sys, time
told = json.load(open('/run/hypercode/told.json'))
relay = sys.argv[sys.argv.index('--socket') + 1].removeprefix('tcp:').split(':')
own = relay[0].rsplit('.', 1)
found = {}
def attempt(name, deed):
    try:
        found[name] = str(deed())
    except OSError as error:
        found[name] = errno.errorcode.get(error.errno, 'timeout')
def unrouted(link):
    link.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'eth0\0')
    link.setsockopt(socket.SOL_SOCKET, socket.SO_DONTROUTE, 1)
def connect(host, port, past_routes=False):
    with socket.socket() as link:
        link.settimeout(0.2)
        if past_routes: unrouted(link)
        link.connect((host, port))
def send(host, port, past_routes=False):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        if past_routes: unrouted(link)
        link.sendto(b'got out', (host, port))
def send_by_index(host, port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        index = struct.pack('@iII', socket.if_nametoindex('eth0'), 0, 0)
        link.sendmsg([b'got out'], [(socket.IPPROTO_IP, 8, index)], socket.MSG_DONTROUTE, (host, port))
with socket.create_connection((relay[0], int(relay[1])), 10) as link:
    link.sendall(b'hello\n')
    found['relay'] = link.recv(100).decode()
gateway = own[0] + '.' + str(int(own[1]) - 1)
for host in told['hosts'] + [gateway, '169.254.169.254', '1.1.1.1'] + told['peers']:
    for port in [told['tcp'], 7400, 53]:
        attempt(f'tcp {host}:{port}', lambda: connect(host, port))
    attempt(f'unrouted {host}', lambda: connect(host, told['tcp'], True))
for host in told['hosts'] + [gateway, '255.255.255.255', '224.0.0.1'] + told['peers']:
    for deed in [send, lambda host, port: send(host, port, True), send_by_index]:
        try: deed(host, told['udp'])
        except OSError: pass
names = ['stolen.example.org', *told['names']]
def resolves(name):
    try: return bool(socket.getaddrinfo(name, 80))
    except socket.gaierror: return False
found['names'] = [name for name in names if resolves(name)]
try: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
except OSError as error: found['packet'] = errno.errorcode[error.errno]
found['forwards'] = open('/proc/sys/net/ipv4/ip_forward').read().strip()
found['devices'] = sorted(name for _, name in socket.if_nameindex())
found['seen'] = sorted(os.listdir('/run/hypercode'))
open('fresh', 'w').write(json.dumps(found))
os.rename('fresh', 'outcome')
time.sleep(600)
"#;

/// T19 to T23 and T29 of a sandbox with a network: it reaches its relay, and neither host nor peers nor names.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_reached_but_the_platform() {
    let place = Place::over_tcp();
    let Some((provider, peer)) = one(&place).await else { return };
    let (tcp, udp) = (TcpListener::bind("0.0.0.0:0").unwrap(), UdpSocket::bind("0.0.0.0:0").unwrap());
    udp.set_nonblocking(true).unwrap();
    tcp.set_nonblocking(true).unwrap();
    let mut hosts =
        vec![docker(&["network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}"])];
    let outward = UdpSocket::bind("0.0.0.0:0").unwrap();
    // Nothing is sent by this: it asks for the route.
    if outward.connect("192.0.2.1:9").is_ok() {
        hosts.push(outward.local_addr().unwrap().ip().to_string());
    }
    let address = |container: &str| {
        docker(&[
            "inspect",
            "--format",
            "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}",
            container,
        ])
    };
    let told = json!({
        "hosts": hosts,
        "peers": [address(peer.id.as_str()), address(&relay(&peer.id))],
        "names": [peer.id.as_str(), relay(&peer.id)],
        "tcp": tcp.local_addr().unwrap().port(),
        "udp": udp.local_addr().unwrap().port(),
    });
    let spec = spec(&place, REACH);
    let platform = bind(&spec);
    std::fs::write(spec.socket.with_file_name("boot").join("told.json"), told.to_string()).unwrap();
    let (mut heard, pid) = {
        let accepted = async {
            let (stream, _) = platform.accept().await.unwrap();
            let pid = stream.peer_cred().unwrap().pid().unwrap();
            (stream, u32::try_from(pid).unwrap())
        };
        let (running, accepted) =
            within("the relay", async { tokio::join!(provider.create(&spec), accepted) }).await;
        running.unwrap();
        accepted
    };
    let mut line = [0; 6];
    heard.read_exact(&mut line).await.unwrap();
    assert_eq!(&line, b"hello\n");
    let peer_of = |pid| Peer { pid, uid: 10_001 };
    assert!(provider.owns(&spec.id, peer_of(pid)).await.unwrap(), "its relay speaks for it");
    assert!(!provider.owns(&peer.id, peer_of(pid)).await.unwrap(), "and for nobody else");
    let own = provider.find(&spec.id).await.unwrap().unwrap();
    let State::Running(Some(runner)) = own.state else { panic!("{own:?}") };
    assert!(!provider.owns(&spec.id, peer_of(runner.pid)).await.unwrap(), "it does not come past its relay");
    heard.write_all(b"welcome").await.unwrap();

    let running = provider.create(&spec).await.unwrap();
    let outcome = written(&place, &running, "outcome").await;
    let mut outcome: serde_json::Map<String, Value> = serde_json::from_str(&outcome).unwrap();
    assert_eq!(outcome.remove("relay"), Some(json!("welcome")));
    assert_eq!(outcome.remove("names"), Some(json!([])));
    assert_eq!(outcome.remove("packet"), Some(json!("EPERM")));
    assert_eq!(outcome.remove("devices"), Some(json!(["eth0", "lo"])));
    assert_eq!(outcome.remove("seen"), Some(json!(["told.json"])), "not the platform's socket");
    outcome.remove("forwards");
    for (attempt, result) in outcome {
        assert_ne!(result, "None", "{attempt} got through");
    }
    assert!(tcp.accept().is_err(), "a connection came to the host");
    assert!(udp.recv(&mut [0; 16]).is_err(), "a datagram came to the host");
    let forwards = docker(&[
        "inspect",
        "--format",
        "{{index .HostConfig.Sysctls \"net.ipv4.ip_forward\"}}",
        &relay(&spec.id),
    ]);
    assert_eq!(forwards, "0");
    for id in [&spec.id, &peer.id] {
        provider.destroy(id).await.unwrap();
        assert!(!is_left(id), "{id}");
    }
}

/// The canary of `doctor` tries the same, and finds it when the host can be heard from a network.
#[tokio::test(flavor = "multi_thread")]
async fn a_canary_finds_no_way_out() {
    let place = Place::over_tcp();
    let Some(provider) = place.provider(&instance()).await else { return };
    let cage = tempfile::tempdir().unwrap();
    prove(&provider, Path::new(STUB), cage.path(), &[], true).await.unwrap();
    let without = Place::new();
    let provider = without.provider(&instance()).await.unwrap();
    let cage = tempfile::tempdir().unwrap();
    prove(&provider, Path::new(STUB), cage.path(), &[], false).await.unwrap();
}

/// SB-3: what is beside a sandbox goes with it, also where its making or its end was interrupted.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_beside_a_sandbox_is_no_orphan() {
    let place = Place::over_tcp();
    let Some((provider, spec)) = one(&place).await else { return };
    docker(&["rm", "--force", spec.id.as_str()]);
    drop(provider);
    let next = place.open(&instance()).await;
    let listed = next.list().await.unwrap();
    assert!(
        matches!(&listed[..], [found] if found.id == spec.id && matches!(found.state, State::Damaged(_))),
        "{listed:?}"
    );
    assert_eq!(next.find(&spec.id).await.unwrap(), None);
    next.destroy(&spec.id).await.unwrap();
    assert!(!is_left(&spec.id));
    assert_eq!(next.list().await.unwrap(), []);
}

/// Without its relay a sandbox would only wait for its end.
#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_ends_with_its_relay() {
    let place = Place::over_tcp();
    let Some((provider, spec)) = one(&place).await else { return };
    let (mut exits, mut breaches) = (provider.exits(), provider.breaches());
    docker(&["kill", &relay(&spec.id)]);
    assert_eq!(exit_of(&mut exits, &spec.id).await.signal, Some(9));
    assert!(breaches.try_recv().is_err(), "it may have ended by itself");
    provider.destroy(&spec.id).await.unwrap();
    assert!(!is_left(&spec.id));
}

/// T32 and T40 of what is beside a sandbox: who executes something in the relay, or joins its network, ends it.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_beside_a_sandbox_is_watched_as_well() {
    let place = Place::over_tcp();
    let Some((provider, executed)) = one(&place).await else { return };
    let mut breaches = provider.breaches();
    let joined = spec(&place, IDLE);
    provider.create(&joined).await.unwrap();
    let _ = Command::new("docker").args(["exec", &relay(&executed.id), "/bin/true"]).output().unwrap();
    let breach = within("the breach", breaches.recv()).await.unwrap();
    assert_eq!((breach.id, breach.what), (executed.id.clone(), Tampering::Executed));

    let intruder = format!("intruder-{}", joined.id);
    let image = place.options(&instance()).image;
    docker(&["run", "--detach", "--name", &intruder, "--network", "none", &image, "sleep", "600"]);
    docker(&["network", "disconnect", "none", &intruder]);
    docker(&["network", "connect", joined.id.as_str(), &intruder]);
    let breach = within("the breach", breaches.recv()).await.unwrap();
    assert_eq!((&breach.id, breach.what), (&joined.id, Tampering::Drifted), "{}", breach.detail);
    assert!(breach.detail.contains("Network.Containers"), "{}", breach.detail);
    for id in [&executed.id, &joined.id] {
        until("it is killed", || hypercode_sandbox::conformance::alive(id).is_empty().then_some(())).await;
        provider.destroy(id).await.unwrap();
        assert_gone(id, "what was tampered with");
        assert!(!is_left(id), "{id}: the intruder does not keep its network");
    }
    docker(&["rm", "--force", &intruder]);
}
