//! A body on its way out behind its head, framed as the head has announced.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Body;

use super::Outbound;
use crate::http::encode::{self, CHUNK_END, Writing};

/// Why a body cannot be sent to its end. What was sent so far must not look whole.
#[derive(Debug)]
pub enum Trouble<E> {
    /// The body itself failed.
    Body(E),
    /// It is longer or shorter than its head has announced.
    Mismatch,
}

/// What is still to be taken from a body.
pub struct Sending<B> {
    /// `None` once it has ended.
    body: Option<B>,
    writing: Writing,
    trailers: bool,
}

impl<B> Sending<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    /// `trailers`: the peer reads them.
    pub fn new(body: B, writing: Writing, trailers: bool) -> Self {
        let bodiless = matches!(writing, Writing::Nothing | Writing::Never);
        Sending { body: Some(body).filter(|_| !bodiless), writing, trailers }
    }

    pub fn is_ended(&self) -> bool {
        self.body.is_none()
    }

    /// Moves what the body has into `out` while there is room; whether it waits for more of the body.
    pub fn gather(&mut self, out: &mut Outbound, cx: &mut Context<'_>) -> Result<bool, Trouble<B::Error>> {
        while let Some(body) = &mut self.body {
            if body.is_end_stream() {
                self.end(out, None)?;
                break;
            }
            if !out.has_room() {
                break;
            }
            match Pin::new(body).poll_frame(cx) {
                Poll::Pending => return Ok(true),
                Poll::Ready(None) => self.end(out, None)?,
                Poll::Ready(Some(Err(error))) => return Err(Trouble::Body(error)),
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => self.data(out, data)?,
                    Err(frame) => {
                        let trailers = frame.into_trailers().ok();
                        self.end(out, trailers.filter(|_| self.trailers))?;
                    }
                },
            }
        }
        Ok(false)
    }

    fn data(&mut self, out: &mut Outbound, data: Bytes) -> Result<(), Trouble<B::Error>> {
        self.writing.owe(data.len()).map_err(|_| Trouble::Mismatch)?;
        if data.is_empty() {
            return Ok(()); // as a chunk it would be the last
        }
        if self.writing.is_chunked() {
            encode::chunk_head(out.gather(), data.len());
            out.push(data, CHUNK_END);
        } else {
            out.push(data, b"");
        }
        Ok(())
    }

    fn end(&mut self, out: &mut Outbound, trailers: Option<HeaderMap>) -> Result<(), Trouble<B::Error>> {
        self.writing.may_end().map_err(|_| Trouble::Mismatch)?;
        // Trailers come by themselves, when there is room; without them the end may have to go behind large data.
        if self.writing.is_chunked() && (trailers.is_some() || !out.replace_tail(LAST_CHUNK)) {
            encode::last_chunk(out.gather(), trailers.as_ref());
        }
        self.body = None;
        Ok(())
    }
}

/// The end of a chunk and the last one.
const LAST_CHUNK: &[u8] = b"\r\n0\r\n\r\n";

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;
    use std::task::Waker;

    use http_body::Frame;

    use super::*;

    struct Frames(VecDeque<Frame<Bytes>>);

    impl Body for Frames {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(Ok))
        }

        fn is_end_stream(&self) -> bool {
            self.0.is_empty()
        }
    }

    /// What leaves when every frame is ready, or nothing if the body does not fit its frame.
    fn sent(frames: &[&[u8]], trailers: bool, writing: Writing) -> Option<Vec<u8>> {
        let mut all: VecDeque<_> = frames.iter().map(|data| Frame::data(Bytes::copy_from_slice(data))).collect();
        if trailers {
            all.push_back(Frame::trailers([("x-sum".parse().unwrap(), "1".parse().unwrap())].into_iter().collect()));
        }
        let (mut sending, mut out, mut bytes) =
            (Sending::new(Frames(all), writing, true), Outbound::default(), Vec::new());
        let mut cx = Context::from_waker(Waker::noop());
        while !sending.is_ended() {
            sending.gather(&mut out, &mut cx).ok()?;
            assert!(matches!(out.poll_write(&mut bytes, &mut cx), Poll::Ready(Ok(()))));
        }
        Some(bytes)
    }

    #[test]
    fn chunks_are_framed_whether_they_are_copied_or_not() {
        let large = vec![b'x'; 10_000];
        let chunk = [b"2710\r\n", large.as_slice(), b"\r\n"].concat();
        let expected = [chunk.as_slice(), b"2\r\nok\r\n0\r\n\r\n"].concat();
        assert!(sent(&[&large, b"", b"ok"], false, Writing::Chunked) == Some(expected));
        let expected = [b"2\r\nok\r\n", chunk.as_slice(), b"0\r\n\r\n"].concat();
        assert!(sent(&[b"ok", &large], false, Writing::Chunked) == Some(expected));
        let expected = [chunk.as_slice(), b"0\r\nx-sum: 1\r\n\r\n"].concat();
        assert!(sent(&[&large], true, Writing::Chunked) == Some(expected));
        assert_eq!(sent(&[], false, Writing::Chunked), Some(b"0\r\n\r\n".to_vec()));
    }

    #[test]
    fn a_length_is_kept_exactly() {
        assert_eq!(sent(&[b"ab", b"cde"], false, Writing::Length(5)), Some(b"abcde".to_vec()));
        assert_eq!(sent(&[b"ab", b"cde"], false, Writing::Length(4)), None);
        assert_eq!(sent(&[b"ab", b"cde"], false, Writing::Length(6)), None);
        assert_eq!(sent(&[b"ab"], true, Writing::UntilClose), Some(b"ab".to_vec()));
        assert_eq!(sent(&[b"ab"], false, Writing::Nothing), Some(Vec::new()));
    }
}
