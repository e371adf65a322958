//! Bodies of requests: at hand or as a stream, passed on in pieces as the limits allow.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, future::BoxFuture, stream::BoxStream};
use hyper::body::{Frame, SizeHint};

use super::{
    limit::Limiter,
    meter::{Direction, Kind, Meter},
};

/// What a request carries.
pub(crate) struct Body(Inner);

enum Inner {
    Whole(Bytes),
    Stream(BoxStream<'static, io::Result<Bytes>>),
}

impl Default for Body {
    fn default() -> Self {
        Self(Inner::Whole(Bytes::new()))
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Inner::Whole(bytes.into()))
    }
}

impl Body {
    /// An error of the stream breaks the request off.
    pub(crate) fn wrap_stream(stream: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Self {
        Self(Inner::Stream(stream.boxed()))
    }
}

/// Says whether a request moves. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress(Arc<Moved>);

#[derive(Debug, Default)]
struct Moved {
    pieces: AtomicU64,
    held: AtomicBool,
}

impl Progress {
    fn moved(&self) {
        self.0.held.store(false, Ordering::Relaxed);
        self.0.pieces.fetch_add(1, Ordering::Relaxed);
    }

    /// How far it is; none while a limit holds it back, which is no standstill.
    pub(super) fn pieces(&self) -> Option<u64> {
        (!self.0.held.load(Ordering::Relaxed)).then(|| self.0.pieces.load(Ordering::Relaxed))
    }
}

/// A body on its way.
pub(super) struct Gated {
    rest: Option<BoxStream<'static, io::Result<Bytes>>>,
    ready: Bytes,
    passing: Option<BoxFuture<'static, usize>>,
    kind: Kind,
    limiter: Limiter,
    meter: Meter,
    progress: Progress,
}

impl Gated {
    pub(super) fn new(body: Body, kind: Kind, limiter: Limiter, meter: Meter, progress: Progress) -> Self {
        let (ready, rest) = match body.0 {
            Inner::Whole(bytes) => (bytes, None),
            Inner::Stream(stream) => (Bytes::new(), Some(stream)),
        };
        Self { rest, ready, passing: None, kind, limiter, meter, progress }
    }
}

impl hyper::body::Body for Gated {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        while self.ready.is_empty() {
            let Some(rest) = &mut self.rest else { return Poll::Ready(None) };
            match ready!(rest.poll_next_unpin(cx)) {
                Some(piece) => self.ready = piece?,
                None => self.rest = None,
            }
        }
        let available = self.ready.len();
        let (limiter, kind) = (self.limiter.clone(), self.kind);
        let passing = self.passing.get_or_insert_with(|| Box::pin(limiter.pass(kind, available)));
        let Poll::Ready(length) = passing.as_mut().poll(cx) else {
            self.progress.0.held.store(true, Ordering::Relaxed);
            return Poll::Pending;
        };
        self.passing = None;
        let piece = self.ready.split_to(length.min(available));
        self.meter.body(Direction::Out, self.kind, piece.len());
        self.progress.moved();
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.ready.is_empty() && self.rest.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.rest {
            None => SizeHint::with_exact(self.ready.len() as u64),
            Some(_) => SizeHint::default(),
        }
    }
}
