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
        let mut place = SPARE.with_borrow_mut(Spare::take).unwrap_or_else(fresh);
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
            if spare.places.len() < SPARE_MAX {
                spare.places.push(place);
            }
        });
    }
}

/// Places that nobody works in.
struct Spare {
    places: Vec<Box<dyn Place>>,
    /// So many of them were never needed since they were last looked at.
    idle: usize,
}

impl Spare {
    fn take(&mut self) -> Option<Box<dyn Place>> {
        let place = self.places.pop();
        self.idle = self.idle.min(self.places.len());
        place
    }
}

/// Gives back half of the memory that no request of this worker has needed since the last call: what a burst has left
/// is gone after some calls. The worker calls it about every 100 ms.
pub fn trim() {
    SPARE.with_borrow_mut(|spare| {
        let kept = spare.places.len() - spare.idle.min(spare.places.len()).div_ceil(2);
        spare.places.truncate(kept);
        spare.idle = kept;
    });
}

fn fresh() -> Box<dyn Place> {
    let make = |proxy: Rc<Proxy>, peer, request| proxy.handle(peer, request);
    Box::new(Work { make, future: Box::pin(None) })
}

/// Places kept by a worker at most, of 3.5 KB each, while requests follow each other.
const SPARE_MAX: usize = 1024;

thread_local! {
    static SPARE: RefCell<Spare> = const { RefCell::new(Spare { places: Vec::new(), idle: 0 }) };
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nobody;

    impl Place for Nobody {
        fn begin(&mut self, _: Rc<Proxy>, _: Rc<Peer>, _: Request<ClientBody>) {}

        fn poll(&mut self, _: &mut Context<'_>) -> Poll<Response<Body>> {
            Poll::Pending
        }

        fn end(&mut self) {}
    }

    fn left() -> usize {
        trim();
        SPARE.with_borrow(|spare| spare.places.len())
    }

    #[test]
    fn what_a_burst_has_left_goes_and_what_is_used_stays() {
        let burst: Vec<Call> = (0..100).map(|_| Call(Some(Box::new(Nobody)))).collect();
        drop(burst);
        assert_eq!(left(), 100, "it has just been used");
        // Eight at a time are used from now on.
        for expected in [54, 31, 19, 13, 10, 9, 8, 8] {
            let used: Vec<Call> =
                (0..8).filter_map(|_| SPARE.with_borrow_mut(Spare::take)).map(|place| Call(Some(place))).collect();
            assert_eq!(used.len(), 8);
            drop(used);
            assert_eq!(left(), expected);
        }
        let idle: Vec<usize> = (0..5).map(|_| left()).collect();
        assert_eq!(idle, [4, 2, 1, 0, 0]);
    }
}
