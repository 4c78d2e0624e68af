//! The PROXY protocol, versions 1 and 2 (haproxy.org, proxy-protocol.txt): who the client of a load balancer is.
//!
//! Only read where the listener is configured for it, and then demanded: a listener that took either form would let
//! any client choose its address. Nothing beyond the header is taken from the socket, so that TLS or HTTP follows
//! unharmed. Sending the header to the app is deliberately absent.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::AsyncReadExt;

use super::stream::Raw;
use crate::plan::ProxyProtocol;

/// The longest version 1 line, its CRLF included.
const V1_MAX: usize = 107;
const V2_SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
const V2_FIXED: usize = 16;
/// The longest version 2 header accepted; the standard asks for 536, certificates in TLVs need more.
const V2_MAX: usize = 4096;
const V2_CRC32C: u8 = 0x03;

/// What the header says; `None` when the connection is the load balancer's own (LOCAL, UNKNOWN).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    pub source: SocketAddr,
    pub destination: SocketAddr,
}

/// The header is not one, or not one that is accepted here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

/// How far the bytes that have come go.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// This many more bytes surely belong to the header.
    Need(usize),
    /// The header goes on to the end of the line.
    NeedLine,
    Done(Option<Addresses>),
}

/// Reads exactly the header. The caller bounds the time.
pub async fn read(stream: &mut Raw, wanted: ProxyProtocol) -> io::Result<Option<Addresses>> {
    let mut header = Vec::with_capacity(V1_MAX);
    loop {
        let more = match parse(&header, wanted) {
            Ok(Progress::Done(addresses)) => return Ok(addresses),
            Ok(Progress::Need(more)) => more,
            Ok(Progress::NeedLine) => rest_of_line(stream).await?,
            Err(Malformed(why)) => return Err(io::Error::new(io::ErrorKind::InvalidData, why)),
        };
        let before = header.len();
        header.resize(before + more, 0);
        let taken = stream.read(&mut header[before..]).await?;
        if taken == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        header.truncate(before + taken);
    }
}

/// How many of the bytes that have arrived belong to the current line.
async fn rest_of_line(stream: &Raw) -> io::Result<usize> {
    let mut seen = [0; V1_MAX];
    let arrived = stream.peek(&mut seen).await?;
    let line = seen[..arrived].iter().position(|&byte| byte == b'\n').map_or(arrived, |end| end + 1);
    Ok(line.max(1)) // at the end of the stream the read says so
}

/// What the first bytes of a connection are; `header` never holds more than was asked for before.
pub fn parse(header: &[u8], wanted: ProxyProtocol) -> Result<Progress, Malformed> {
    let (v1, v2) = match wanted {
        ProxyProtocol::Off => return Ok(Progress::Done(None)),
        ProxyProtocol::V1 => (true, false),
        ProxyProtocol::V2 => (false, true),
        ProxyProtocol::Any => (true, true),
    };
    let start = &header[..header.len().min(V2_SIGNATURE.len())];
    let is_v1 = v1 && start.starts_with(&b"PROXY "[..start.len().min(6)]);
    let is_v2 = v2 && start == &V2_SIGNATURE[..start.len()];
    match (is_v1, is_v2) {
        (false, false) => Err(Malformed("no PROXY header")),
        _ if header.len() < V2_SIGNATURE.len() => Ok(Progress::Need(V2_SIGNATURE.len() - header.len())),
        (true, _) => parse_v1(header),
        (false, true) => parse_v2(header),
    }
}

fn parse_v1(header: &[u8]) -> Result<Progress, Malformed> {
    let Some(line) = header.strip_suffix(b"\r\n") else {
        let ended = header.contains(&b'\n');
        return if ended || header.len() >= V1_MAX { Err(Malformed("no CRLF")) } else { Ok(Progress::NeedLine) };
    };
    if header.len() > V1_MAX {
        return Err(Malformed("too long"));
    }
    let line = std::str::from_utf8(line).map_err(|_| Malformed("not ASCII"))?;
    let mut words = line.split(' ').skip(1);
    let family = words.next().unwrap_or_default();
    if family == "UNKNOWN" {
        return Ok(Progress::Done(None));
    }
    let mut next = || words.next().ok_or(Malformed("too few words"));
    let (source, destination) = (v1_address(family, next()?)?, v1_address(family, next()?)?);
    let (source_port, destination_port) = (v1_port(next()?)?, v1_port(next()?)?);
    if words.next().is_some() {
        return Err(Malformed("too many words"));
    }
    Ok(Progress::Done(Some(Addresses {
        source: SocketAddr::new(source, source_port),
        destination: SocketAddr::new(destination, destination_port),
    })))
}

fn v1_address(family: &str, text: &str) -> Result<IpAddr, Malformed> {
    let address = match family {
        "TCP4" => text.parse().map(IpAddr::V4),
        "TCP6" => text.parse().map(IpAddr::V6),
        _ => return Err(Malformed("unknown family")),
    };
    address.map_err(|_| Malformed("not an address of the family"))
}

fn v1_port(text: &str) -> Result<u16, Malformed> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain).ok_or(Malformed("not a port"))
}

fn parse_v2(header: &[u8]) -> Result<Progress, Malformed> {
    let Some(fixed) = header.first_chunk::<V2_FIXED>() else {
        return Ok(Progress::Need(V2_FIXED - header.len()));
    };
    let length = V2_FIXED + usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if length > V2_MAX {
        return Err(Malformed("too long"));
    }
    if header.len() < length {
        return Ok(Progress::Need(length - header.len()));
    }
    let body = &header[V2_FIXED..length];
    match fixed[12] {
        0x20 => return Ok(Progress::Done(None)), // LOCAL: whatever follows is to be ignored
        0x21 => {}
        _ => return Err(Malformed("unknown version or command")),
    };
    let (addresses, tlvs) = match fixed[13] {
        0x11 => v2_addresses::<4>(body, |octets| Ipv4Addr::from(octets).into())?,
        0x21 => v2_addresses::<16>(body, |octets| Ipv6Addr::from(octets).into())?,
        // Unspecified, datagrams and Unix sockets: the standard says to use the connection's own addresses.
        0x00 | 0x12 | 0x22 | 0x31 | 0x32 => return Ok(Progress::Done(None)),
        _ => return Err(Malformed("unknown family")),
    };
    check_tlvs(&header[..length], tlvs)?;
    Ok(Progress::Done(Some(addresses)))
}

fn v2_addresses<const N: usize>(
    body: &[u8],
    address: impl Fn([u8; N]) -> IpAddr,
) -> Result<(Addresses, &[u8]), Malformed> {
    let short = Malformed("too short for its family");
    let (source, rest) = body.split_first_chunk::<N>().ok_or(short)?;
    let (destination, rest) = rest.split_first_chunk::<N>().ok_or(short)?;
    let (ports, tlvs) = rest.split_first_chunk::<4>().ok_or(short)?;
    let port = |at: usize| u16::from_be_bytes([ports[at], ports[at + 1]]);
    let addresses = Addresses {
        source: SocketAddr::new(address(*source), port(0)),
        destination: SocketAddr::new(address(*destination), port(2)),
    };
    Ok((addresses, tlvs))
}

/// Walks the type-length-values; a checksum, where there is one, must be right.
fn check_tlvs(header: &[u8], mut tlvs: &[u8]) -> Result<(), Malformed> {
    while let Some((&[kind, high, low], rest)) = tlvs.split_first_chunk::<3>() {
        let length = usize::from(u16::from_be_bytes([high, low]));
        let value = rest.get(..length).ok_or(Malformed("a TLV is too long"))?;
        if kind == V2_CRC32C {
            let sent: [u8; 4] = value.try_into().map_err(|_| Malformed("the checksum is not 4 bytes"))?;
            let at = header.len() - rest.len();
            let mut zeroed = header.to_vec();
            zeroed[at..at + 4].fill(0);
            if crc32c(&zeroed) != u32::from_be_bytes(sent) {
                return Err(Malformed("the checksum is wrong"));
            }
        }
        tlvs = &rest[length..];
    }
    if tlvs.is_empty() { Ok(()) } else { Err(Malformed("a TLV is cut off")) }
}

/// CRC-32C (Castagnoli), bit by bit: a header is short, and a table would be larger than the code.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).expect("a test's body is short").to_be_bytes();
        [&V2_SIGNATURE[..], &[command, family], &length, body].concat()
    }

    const TCP4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 2, 0x30, 0x39, 0x01, 0xbb];

    fn addresses(source: &str, destination: &str) -> Progress {
        let parsed = |text: &str| text.parse().expect("a literal");
        Progress::Done(Some(Addresses { source: parsed(source), destination: parsed(destination) }))
    }

    #[test]
    fn version_1_lines() {
        let cases: [(&[u8], Result<Progress, Malformed>); 14] = [
            (b"PROXY TCP4 192.0.2.1 198.51.100.2 12345 443\r\n", Ok(addresses("192.0.2.1:12345", "198.51.100.2:443"))),
            (b"PROXY TCP6 2001:db8::1 ::1 1 65535\r\n", Ok(addresses("[2001:db8::1]:1", "[::1]:65535"))),
            (b"PROXY UNKNOWN\r\n", Ok(Progress::Done(None))),
            (b"PROXY UNKNOWN ffff::1 anything\r\n", Ok(Progress::Done(None))),
            (b"", Ok(Progress::Need(12))),
            (b"PROX", Ok(Progress::Need(8))),
            (b"PROXY TCP4 192.0.2.1 198", Ok(Progress::NeedLine)),
            (b"PROXY TCP4 192.0.2.1 198.51.100.2 12345 65536\r\n", Err(Malformed("not a port"))),
            (b"PROXY TCP4 192.0.2.1 198.51.100.2 +1 1\r\n", Err(Malformed("not a port"))),
            (b"PROXY TCP4 ::1 ::1 1 1\r\n", Err(Malformed("not an address of the family"))),
            (b"PROXY TCP5 192.0.2.1 192.0.2.1 1 1\r\n", Err(Malformed("unknown family"))),
            (b"PROXY TCP4 192.0.2.1 198.51.100.2 1 1 1\r\n", Err(Malformed("too many words"))),
            (b"PROXY TCP4 192.0.2.1 198.51.100.2 1 1\n", Err(Malformed("no CRLF"))),
            (b"GET / HTTP/1.1\r\n", Err(Malformed("no PROXY header"))),
        ];
        for (input, expected) in cases {
            assert_eq!(parse(input, ProxyProtocol::V1), expected, "{:?}", String::from_utf8_lossy(input));
        }
        let long = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; V1_MAX]].concat();
        assert_eq!(parse(&long, ProxyProtocol::Any), Err(Malformed("no CRLF")));
    }

    #[test]
    fn version_2_headers() {
        let ours = addresses("192.0.2.1:12345", "198.51.100.2:443");
        assert_eq!(parse(&v2(0x21, 0x11, &TCP4), ProxyProtocol::Any), Ok(ours));
        let tcp6 = [[0; 15].as_slice(), &[1], &[0; 15], &[2], &[0, 80, 1, 187]].concat();
        assert_eq!(parse(&v2(0x21, 0x21, &tcp6), ProxyProtocol::V2), Ok(addresses("[::1]:80", "[::2]:443")));
        for local in [v2(0x20, 0x11, &TCP4), v2(0x20, 0, &[]), v2(0x21, 0, &[]), v2(0x21, 0x31, &[0; 216])] {
            assert_eq!(parse(&local, ProxyProtocol::V2), Ok(Progress::Done(None)));
        }
        let whole = v2(0x21, 0x11, &TCP4);
        for cut in 12..whole.len() {
            let Ok(Progress::Need(more)) = parse(&whole[..cut], ProxyProtocol::V2) else { panic!("cut at {cut}") };
            assert!(more > 0 && cut + more <= whole.len(), "never more than the header is asked for");
        }
    }

    #[test]
    fn version_2_headers_that_are_refused() {
        let too_long = [&V2_SIGNATURE[..], &[0x21, 0x11, 0x0f, 0xf1]].concat();
        let cases = [
            (v2(0x11, 0x11, &TCP4), "unknown version or command"),
            (v2(0x22, 0x11, &TCP4), "unknown version or command"),
            (v2(0x21, 0x41, &TCP4), "unknown family"),
            (v2(0x21, 0x11, &TCP4[..11]), "too short for its family"),
            (v2(0x21, 0x11, &[&TCP4[..], &[1, 0]].concat()), "a TLV is cut off"),
            (v2(0x21, 0x11, &[&TCP4[..], &[1, 0, 9, 1]].concat()), "a TLV is too long"),
            (v2(0x21, 0x11, &[&TCP4[..], &[V2_CRC32C, 0, 4, 1, 2, 3, 4]].concat()), "the checksum is wrong"),
            (too_long, "too long"),
        ];
        for (input, why) in cases {
            assert_eq!(parse(&input, ProxyProtocol::V2), Err(Malformed(why)));
        }
        assert_eq!(parse(&v2(0x21, 0x11, &TCP4), ProxyProtocol::V1), Err(Malformed("no PROXY header")));
        assert_eq!(parse(b"PROXY UNKNOWN\r\n", ProxyProtocol::V2), Err(Malformed("no PROXY header")));
    }

    #[test]
    fn a_right_checksum_is_accepted() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283, "the check value of the catalogue");
        let mut header = v2(0x21, 0x11, &[&TCP4[..], &[V2_CRC32C, 0, 4, 0, 0, 0, 0]].concat());
        let sum = crc32c(&header).to_be_bytes();
        let at = header.len() - 4;
        header[at..].copy_from_slice(&sum);
        assert!(matches!(parse(&header, ProxyProtocol::V2), Ok(Progress::Done(Some(_)))));
    }

    #[tokio::test]
    async fn nothing_behind_the_header_is_taken() {
        // Goal: HTTP after either header is intact, also when the header arrives in pieces.
        use tokio::io::AsyncWriteExt;
        for (header, wanted) in [
            (b"PROXY TCP4 192.0.2.1 198.51.100.2 12345 443\r\n".to_vec(), ProxyProtocol::Any),
            (v2(0x21, 0x11, &TCP4), ProxyProtocol::Any),
        ] {
            for split in [0, 5, 13, header.len() - 1] {
                let (mut client, server) = tokio::net::UnixStream::pair().expect("a socket pair");
                let mut server = Raw::Unix(server);
                let reading = async { read(&mut server, wanted).await.expect("a good header") };
                let writing = async {
                    client.write_all(&header[..split]).await.expect("a write");
                    tokio::task::yield_now().await;
                    client.write_all(&header[split..]).await.expect("a write");
                    client.write_all(b"GET /").await.expect("a write");
                };
                let (found, ()) = tokio::join!(reading, writing);
                assert_eq!(Progress::Done(found), addresses("192.0.2.1:12345", "198.51.100.2:443"));
                let mut rest = [0; 5];
                server.read_exact(&mut rest).await.expect("the rest");
                assert_eq!(&rest, b"GET /");
            }
        }
    }
}
