//! What a canary with a network tries: to be heard by the host, in every way that needs no rights.

use std::ffi::OsString;
use std::fs;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};

/// In the directory that a canary sees: where the host listens, a line for each of its addresses.
const DOORS: &str = "doors";
/// What a canary calls.
const CALL: &[u8] = b"hypercode-canary";
/// Where clouds tell a machine its secrets.
const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// How long a canary waits for an answer that must not come.
const ANSWER: Duration = Duration::from_millis(200);
/// How long its relay may take to listen.
const RELAY: Duration = Duration::from_secs(5);

/// The host, listening on all its addresses.
pub(super) struct Ears {
    tcp: TcpListener,
    udp: UdpSocket,
}

impl Ears {
    /// Begins to listen, and writes into `directory` where.
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        let tcp = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        let udp = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        tcp.set_nonblocking(true)?;
        udp.set_nonblocking(true)?;
        let (tcp_port, udp_port) = (tcp.local_addr()?.port(), udp.local_addr()?.port());
        let table = fs::read_to_string("/proc/net/fib_trie")?;
        let lines = addresses(&table).into_iter().chain([METADATA]);
        let lines: String = lines.map(|address| format!("{address} {tcp_port} {udp_port}\n")).collect();
        fs::write(directory.join(DOORS), lines)?;
        Ok(Self { tcp, udp })
    }

    /// What was heard of a canary, once it has ended.
    pub(super) fn heard(&self) -> Option<String> {
        let mut text = [0; 64];
        match self.udp.recv_from(&mut text) {
            Ok((bytes, from)) if text[..bytes] == *CALL => {
                return Some(format!("a datagram of it came to this host from {from}"));
            }
            _ => {}
        }
        let (_, from) = self.tcp.accept().ok()?;
        Some(format!("a connection came to this host from {from}"))
    }
}

/// The addresses that are this host's own, as the kernel's routing table has them (proc_net(5)).
fn addresses(table: &str) -> Vec<Ipv4Addr> {
    let mut found = Vec::new();
    let mut last: Option<Ipv4Addr> = None;
    for line in table.lines().map(str::trim) {
        match line.strip_prefix("|-- ") {
            Some(address) => last = address.parse().ok(),
            None if line == "/32 host LOCAL" => found.extend(last.take()),
            None => {}
        }
    }
    found.retain(|address: &Ipv4Addr| !address.is_loopback());
    found.sort_unstable();
    found.dedup();
    found
}

/// What got through of a canary that has a network, as the file that the host wrote for it says; `None` without one.
pub(super) fn breaches(directory: &Path, relay: Option<SocketAddr>, device: &str) -> Option<Vec<String>> {
    let doors = fs::read_to_string(directory.join(DOORS)).ok()?;
    let mut found = Vec::new();
    if !relay.is_some_and(reaches) {
        found.push("it cannot reach its relay".to_owned());
    }
    for door in doors.lines() {
        let mut words = door.split(' ');
        let mut next = || words.next().unwrap_or_default().to_owned();
        let (Ok(address), Ok(tcp), Ok(udp)) = (next().parse::<Ipv4Addr>(), next().parse(), next().parse())
        else {
            continue;
        };
        if TcpStream::connect_timeout(&SocketAddr::new(address.into(), tcp), ANSWER).is_ok() {
            found.push(format!("it connects to {address} of the host"));
        }
        // Whether they arrive is for the host to say.
        let _ = call((address, udp), None);
        let _ = call((address, udp), Some(device));
    }
    Some(found)
}

/// Sends a datagram, by the routes that there are or past them.
fn call(to: (Ipv4Addr, u16), device: Option<&str>) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    if let Some(device) = device {
        setsockopt(&socket, sockopt::BindToDevice, &OsString::from(device))?;
        setsockopt(&socket, sockopt::DontRoute, &true)?;
    }
    socket.send_to(CALL, to).map(drop)
}

fn reaches(relay: SocketAddr) -> bool {
    let deadline = Instant::now() + RELAY;
    loop {
        match TcpStream::connect_timeout(&relay, RELAY) {
            Ok(_) => return true,
            Err(error) if error.kind() != ErrorKind::ConnectionRefused || Instant::now() >= deadline => {
                return false;
            }
            Err(_) => std::thread::sleep(ANSWER / 10),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_addresses_of_a_host_are_read_from_its_table() {
        let table = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 127.0.0.1\n        /32 host LOCAL\n     |-- 192.168.0.7\n  \
                     /32 host LOCAL\n     |-- 192.168.0.255\n        /32 link BROADCAST\n     |-- 10.0.0.0\n  \
                     /24 link UNICAST\n     |-- 192.168.0.7\n        /32 host LOCAL\n";
        assert_eq!(addresses(table), [Ipv4Addr::new(192, 168, 0, 7)]);
    }
}
