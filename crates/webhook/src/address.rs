//! Which addresses a hook may reach: the public ones, and networks that the administrator names.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use ipnet::IpNet;

/// Private networks that hooks may reach all the same; none, unless named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed(Vec<IpNet>);

impl Allowed {
    /// May a hook go to this address?
    #[must_use]
    pub fn may(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        !is_private(address) || self.0.iter().any(|network| network.contains(&address))
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// From addresses and networks such as `127.0.0.1` or `10.1.0.0/16`.
impl<S: AsRef<str>> TryFrom<&[S]> for Allowed {
    type Error = String;

    fn try_from(texts: &[S]) -> Result<Self, String> {
        let network = |text: &S| {
            let text = text.as_ref().trim();
            IpNet::from_str(text)
                .or_else(|_| IpAddr::from_str(text).map(IpNet::from))
                .map_err(|_| format!("`{text}` is neither an address nor a network such as 10.1.0.0/16"))
        };
        texts.iter().map(network).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&texts.join(", "))
    }
}

/// Is this an address that only means something here: this machine, this network, a cloud's metadata, or nobody?
#[must_use]
pub fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_private_v4(address),
        IpAddr::V6(address) => is_private_v6(address),
    }
}

fn is_private_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    a == 0
        || address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation()
        // Shared address space (RFC 6598), protocol assignments (RFC 6890), benchmarking (RFC 2544), reserved (RFC 1112).
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (18..20).contains(&b))
        || a >= 240
}

fn is_private_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_private_v4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        // NAT64 and 6to4 carry an IPv4 address: what that one may not, they may not.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        [0x2002, high, low, ..] => embedded(high, low),
        [0x2001, 0xdb8, ..] => true,
        // Teredo and other protocol assignments below 2001::/23.
        [0x2001, second, ..] if second < 0x200 => true,
        // Only 2000::/3 is given out.
        [first, ..] => first & 0xe000 != 0x2000,
    }
}
