//! Addresses for the networks of sandboxes: each takes eight, of a block that is the platform's.

use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::Ipv4Addr;
use std::str::FromStr;

use crate::{Error, Id};

/// Bits of a network's prefix: eight addresses, of which the sandbox and its relay have one each.
const BITS: u8 = 29;
/// Addresses of one network.
const SIZE: u32 = 1 << (32 - BITS);
/// The largest block.
const BITS_MIN: u8 = 8;

/// A block of private addresses of which every sandbox gets a small network of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnets {
    first: Ipv4Addr,
    bits: u8,
}

impl Subnets {
    /// A block that hosts seldom use: 8192 networks.
    pub const DEFAULT: Self = Self { first: Ipv4Addr::new(10, 81, 0, 0), bits: 16 };

    /// All networks of the block, each once, in an order in which few sandboxes begin with the same.
    pub(super) fn shuffled(self, id: &Id) -> impl Iterator<Item = Subnet> {
        let mut hasher = DefaultHasher::new();
        id.as_str().hash(&mut hasher);
        let count = 1_u32 << (BITS - self.bits);
        // Below 2²¹, as the block has eight bits at least.
        let from = u32::try_from(hasher.finish() % u64::from(count)).unwrap_or_default();
        (0..count).map(move |nth| Subnet(u32::from(self.first) + (from + nth) % count * SIZE))
    }
}

impl fmt::Display for Subnets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.bits)
    }
}

impl FromStr for Subnets {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let right = "a private IPv4 network of at least 8 addresses, such as `10.81.0.0/16`";
        let read = || {
            let (first, bits) = text.split_once('/')?;
            let (first, bits): (Ipv4Addr, u8) = (first.parse().ok()?, bits.parse().ok()?);
            let is_block = (BITS_MIN..=BITS).contains(&bits) && u32::from(first) << bits == 0;
            (is_block && first.is_private()).then_some(Self { first, bits })
        };
        read().ok_or_else(|| Error::invalid("subnets", text, right))
    }
}

/// The network of one sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subnet(u32);

impl Subnet {
    /// The relay's address in it.
    pub(super) fn relay(self) -> Ipv4Addr {
        Ipv4Addr::from(self.0 + 2)
    }

    /// The sandbox's.
    pub(super) fn agent(self) -> Ipv4Addr {
        Ipv4Addr::from(self.0 + 3)
    }

    /// The name of its bridge on the host: 15 characters at most (netdevice(7)), and no other network's.
    pub(super) fn bridge(self) -> String {
        format!("hc-{:08x}", self.0)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{BITS}", Ipv4Addr::from(self.0))
    }
}

impl FromStr for Subnet {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let Subnets { first, bits } = text.parse()?;
        match bits {
            BITS => Ok(Self(first.into())),
            _ => Err(Error::invalid("subnet", text, "one of 8 addresses")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_network_of_a_block_is_tried_once() {
        let block: Subnets = "192.168.4.0/24".parse().unwrap();
        let all: Vec<_> = block.shuffled(&Id::new("one").unwrap()).collect();
        assert_eq!(all.iter().map(Subnet::to_string).collect::<HashSet<_>>().len(), 32);
        for subnet in all {
            assert_eq!(subnet.to_string().parse::<Subnet>().unwrap(), subnet);
            assert_eq!(subnet.relay().octets()[..3], [192, 168, 4]);
            assert!(subnet.bridge().len() <= 15);
        }
    }

    #[test]
    fn a_block_is_private_whole_and_large_enough() {
        assert_eq!(Subnets::DEFAULT.to_string().parse::<Subnets>().unwrap(), Subnets::DEFAULT);
        for text in
            ["", "10.81.0.0", "10.81.0.0/30", "10.81.0.1/16", "8.8.0.0/16", "10.0.0.0/7", "10.81.0.0/x"]
        {
            assert!(text.parse::<Subnets>().is_err(), "{text}");
        }
    }
}
