//! Clients beside curl: h2load, Node's fetch and Python's http.client.

use std::process::Command;

use crate::nginx::nginx;
use crate::python::uvicorn;
use crate::support::{Outrigger, config, tools};
use crate::{Stand, with_tls};

const REQUESTS: usize = 1000;

fn h2load(arguments: &[&str], url: &str) {
    let count = REQUESTS.to_string();
    let mut command = Command::new("h2load");
    let told = tools::said(command.args(["-n", &count, "-c", "8"]).args(arguments).arg(url));
    let wanted = format!("{REQUESTS} succeeded, 0 failed, 0 errored, 0 timeout");
    assert!(told.contains(&wanted) && told.contains(&format!("status codes: {REQUESTS} 2xx")), "{arguments:?} {told}");
}

#[test]
fn h2load_loses_nothing() {
    let Some(nginx) = nginx().filter(|_| tools::have_tool("h2load")) else { return };
    let outrigger = Outrigger::run(config(nginx.address, ""));
    let url = format!("http://{}/index.html", outrigger.web());
    h2load(&["--h1"], &url);
    h2load(&["-m", "10"], &url);
    let (tls, _) = with_tls(nginx.address);
    h2load(&["-m", "10"], &format!("https://{}/index.html", tls.web()));
    assert_eq!(outrigger.metric("outrigger_requests_total", "") as usize, 2 * REQUESTS);
}

const FETCH: &str = "
const url = process.argv[1];
const one = async (n) => {
  const answer = await fetch(url + '/echo', { method: 'POST', body: 'x'.repeat(n * 1000) });
  return answer.status + ' ' + (await answer.text()).length;
};
(async () => {
  console.log((await Promise.all([...Array(40).keys()].map(one))).join());
  for (let n = 0; n < 20; n++) console.log(await one(n));
  const stream = new ReadableStream({ start(to) {
    for (let n = 0; n < 50; n++) to.enqueue(new Uint8Array(10000).fill(n));
    to.close();
  } });
  console.log(await (await fetch(url + '/digest', { method: 'POST', body: stream, duplex: 'half' })).text());
  console.log((await (await fetch(url + '/download?bytes=3000000')).arrayBuffer()).byteLength);
  console.log((await fetch(url + '/missing')).status);
})();
";

#[test]
fn fetch_of_node_sees_the_same() {
    let Some(app) = uvicorn().filter(|_| tools::have_tool("node")) else { return };
    let stand = Stand::new(app);
    let fetch = |address| tools::said(Command::new("node").args(["-e", FETCH, &format!("http://{address}")]));
    let through = fetch(stand.web());
    assert_eq!(through, fetch(stand.direct));
    assert!(through.ends_with("3000000\n404\n"), "{through}");
}

const HTTP_CLIENT: &str = "
import http.client, sys
connection = http.client.HTTPConnection(sys.argv[1], timeout=20)
def ask(method, path, body=None, **options):
    connection.request(method, path, body, **options)
    answer = connection.getresponse()
    print(method, path, answer.version, answer.status, answer.read()[:200])
for number in range(20):
    ask('GET', '/plain/%d' % number)
    ask('POST', '/echo', b'x' * number)
ask('PUT', '/digest', iter([b'a' * 5000] * 20), encode_chunked=True)
ask('HEAD', '/plain')
ask('GET', '/missing')
";

#[test]
fn the_client_of_python_keeps_its_connection_and_sees_the_same() {
    let (Some(app), Some(python)) = (uvicorn(), tools::python(&["http.client"])) else { return };
    let stand = Stand::new(app);
    let ask = |address: std::net::SocketAddr| {
        tools::said(Command::new(&python).args(["-c", HTTP_CLIENT, &address.to_string()]))
    };
    assert_eq!(ask(stand.web()), ask(stand.direct));
}
