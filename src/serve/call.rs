//! One request's work, from its head to its answer, in memory that the worker uses again.
//!
//! The work is a future of some kilobytes, larger than what allocators keep at hand, and an idle connection must not
//! hold it. So finished ones leave their place to the next request of the worker.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use crate::http::{Request, Response};
use crate::proxy::{Body, ClientBody, Peer, Proxy};

/// Work that is under way; dropping it takes the request back.
pub struct Call(Option<Box<dyn Place>>);

/// Where one request's work happens.
trait Place {
    fn begin(&mut self, proxy: Rc<Proxy>, peer: Rc<Peer>, request: Request<ClientBody>);
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Response<Body>>;
    fn end(&mut self);
}

/// `F` has no name that could be written down; `make` is how it comes about.
struct Work<F, M> {
    make: M,
    future: Pin<Box<Option<F>>>,
}

impl<F, M> Place for Work<F, M>
where
    F: Future<Output = Response<Body>>,
    M: Fn(Rc<Proxy>, Rc<Peer>, Request<ClientBody>) -> F,
{
    fn begin(&mut self, proxy: Rc<Proxy>, peer: Rc<Peer>, request: Request<ClientBody>) {
        self.future.as_mut().set(Some((self.make)(proxy, peer, request)));
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Response<Body>> {
        // Begun by whoever made the call, and not ended before it is dropped.
        self.future.as_mut().as_pin_mut().map_or(Poll::Pending, |future| future.poll(cx))
    }

    fn end(&mut self) {
        self.future.as_mut().set(None);
    }
}

impl Call {
    pub fn begin(proxy: &Rc<Proxy>, peer: &Rc<Peer>, request: Request<ClientBody>) -> Call {
        let mut place = SPARE.with_borrow_mut(Vec::pop).unwrap_or_else(fresh);
        place.begin(Rc::clone(proxy), Rc::clone(peer), request);
        Call(Some(place))
    }

    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Response<Body>> {
        self.0.as_mut().map_or(Poll::Pending, |place| place.poll(cx))
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let Some(mut place) = self.0.take() else { return };
        place.end();
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < SPARE_MAX {
                spare.push(place);
            }
        });
    }
}

fn fresh() -> Box<dyn Place> {
    let make = |proxy: Rc<Proxy>, peer, request| proxy.handle(peer, request);
    Box::new(Work { make, future: Box::pin(None) })
}

/// Places kept by a worker; 3.5 KB each.
const SPARE_MAX: usize = 64;

thread_local! {
    static SPARE: RefCell<Vec<Box<dyn Place>>> = const { RefCell::new(Vec::new()) };
}
