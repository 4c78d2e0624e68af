// An app on Node's own HTTP server: says its port, its signals and what it was asked. HOST, PORT and
// the arguments `normal CODE`, `stubborn` and `fail CODE` say where it listens, how it lives and how it ends.
const crypto = require('crypto');
const http = require('http');
const log = (words) => process.stdout.write(words + '\n');
setTimeout(() => process.exit(99), 120000).unref();

if (process.argv[2] === 'fail') {
  log('failing at once');
  process.exit(Number(process.argv[3]));
}
process.on('SIGTERM', () => {
  log('app: SIGTERM');
  if (process.argv[2] === 'stubborn') return;
  server.close(() => process.exit(Number(process.argv[3] || 0)));
  server.closeIdleConnections();
});

// One event is sent at the start and one for each request of /next, so that a client which waits for each event before
// it asks for the next one sees whether events are held back.
const listeners = new Set();
let events = 0;
const event = (res) => res.write(`id: ${events}\ndata: event ${events++}\n\n`);

const routes = {
  '/slow': (req, res) => {
    log('app: slow begun');
    setTimeout(() => { log('app: slow done'); res.end('slow'); }, 500);
  },
  '/crash': () => { log('app: crashing'); process.exit(7); },
  '/environment': (req, res) => {
    res.setHeader('content-type', 'application/json');
    res.end(JSON.stringify({ environment: process.env, arguments: process.argv.slice(2), pid: process.pid }));
  },
  '/echo': (req, res, body) => {
    res.setHeader('content-type', req.headers['content-type'] || 'text/plain');
    res.end(body);
  },
  '/digest': (req, res, body) => res.end(crypto.createHash('sha256').update(body).digest('hex') + ' ' + body.length),
  '/asked': (req, res, body) => {
    res.setHeader('content-type', 'application/json');
    res.end(JSON.stringify({ method: req.method, url: req.url, host: req.headers.host, body: body.length }));
  },
  '/chunked': (req, res) => {
    res.setHeader('trailer', 'x-sum');
    for (let n = 0; n < 100; n++) res.write(`line ${n}\n`);
    res.addTrailers({ 'x-sum': '100' });
    res.end();
  },
  '/cookies': (req, res) => {
    res.setHeader('set-cookie', ['a=1; Path=/', 'b=2; HttpOnly']);
    res.end(req.headers.cookie || '');
  },
  '/hinted': (req, res) => res.writeEarlyHints({ link: '</a.css>; rel=preload' }, () => res.end('page')),
  '/missing': (req, res) => { res.statusCode = 404; res.end('no such thing'); },
  '/broken': (req, res) => { res.statusCode = 500; res.end('it broke'); },
  '/empty': (req, res) => { res.statusCode = 204; res.end(); },
  '/moved': (req, res) => { res.writeHead(302, { location: '/asked' }); res.end(); },
  '/events': (req, res) => {
    res.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-cache' });
    listeners.add(res);
    res.on('close', () => { listeners.delete(res); log('app: events closed'); });
    event(res);
  },
  '/next': (req, res) => { listeners.forEach(event); res.end(); },
};

const server = http.createServer((req, res) => {
  const parts = [];
  req.on('data', (piece) => parts.push(piece));
  req.on('end', () => {
    const route = routes[req.url.split('?')[0]];
    if (route) route(req, res, Buffer.concat(parts));
    else res.end(`${req.method} ${req.url}`);
  });
});
server.on('checkContinue', (req, res) => { res.writeContinue(); server.emit('request', req, res); });
const { HOST = '127.0.0.1', PORT = 0 } = process.env;
const start = () => server.listen(Number(PORT), HOST, () => log(`port ${server.address().port}`));
setTimeout(start, Number(process.env.START_AFTER_MS || 0));
