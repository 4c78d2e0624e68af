//! The first bytes behind a load balancer: PROXY protocol, both versions, read as a connection reads them. Asserts: no panic;
//! no byte behind the header is asked for; reading ends within the bounds; a shorter piece of a good header is never taken for
//! a whole one; addresses that are read are written and read again as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use outrigger::plan::ProxyProtocol;
use outrigger::serve::proxy_protocol::{Addresses, Progress, parse};

const HEADER_MAX: usize = 4096;
const LINE_MAX: usize = 107;

fuzz_target!(|data: &[u8]| {
    let Some((&which, stream)) = data.split_first() else { return };
    let wanted = [ProxyProtocol::Any, ProxyProtocol::V1, ProxyProtocol::V2][usize::from(which % 3)];
    let mut header = 0;
    loop {
        let more = match parse(&stream[..header], wanted) {
            Err(malformed) => return assert!(!malformed.0.is_empty()),
            Ok(Progress::Done(addresses)) => {
                addresses.into_iter().for_each(again);
                return;
            }
            Ok(Progress::Need(more)) => more,
            // As a socket that has all of the stream tells it, of which so much is looked at.
            Ok(Progress::NeedLine) => {
                let rest = &stream[header..stream.len().min(header + LINE_MAX)];
                rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |end| end + 1).max(1)
            }
        };
        assert!(more > 0, "asks for nothing");
        // Byte by byte it comes to the same: nothing is decided before what was asked for is there.
        for between in header + 1..(header + more).min(stream.len()) {
            let early = parse(&stream[..between], wanted);
            assert!(!matches!(early, Ok(Progress::Done(_))), "done after {between} of {}", header + more);
        }
        header += more;
        if header > stream.len() {
            return;
        }
        assert!(header <= HEADER_MAX, "reads on");
    }
});

fn again(addresses: Addresses) {
    let Addresses { source, destination } = addresses;
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from, to) = (source.ip(), destination.ip());
    let line = format!("PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port());
    assert_eq!(parse(line.as_bytes(), ProxyProtocol::V1), Ok(Progress::Done(Some(addresses))));
}
