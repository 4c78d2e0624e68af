//! The timers that run while an attempt waits for its answer, and which of them is over.

use std::time::{Duration, Instant};

use super::refusal::Refusal;
use super::upload::Upload;
use crate::plan::RoutePlan;

/// How often the pace of an upload is looked at.
const PACE_INTERVAL: Duration = Duration::from_secs(1);

pub struct Timers<'a> {
    pub route: &'a RoutePlan,
    pub deadline: Instant,
    pub began: Instant,
    pub upload: Option<&'a Upload>,
}

impl Timers<'_> {
    /// When to look again.
    pub fn next(&self, now: Instant) -> Instant {
        let mut next = self.deadline;
        if let Some(per_try) = self.route.retry.per_try {
            next = next.min(self.began + per_try);
        }
        match self.upload.map(Upload::ended) {
            Some(None) => next.min(now + PACE_INTERVAL),
            Some(Some(ended)) => next.min(ended.max(self.began) + self.route.timeouts.first_byte),
            None => next.min(self.began + self.route.timeouts.first_byte),
        }
    }

    /// How long the app has had the whole request.
    pub fn served(&self, now: Instant) -> Duration {
        let since = match self.upload {
            None => Some(self.began),
            Some(upload) => upload.ended().map(|ended| ended.max(self.began)),
        };
        since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// What is over at `now`. The first-byte timer runs from the end of the upload.
    pub fn fired(&self, now: Instant) -> Option<Refusal> {
        if now >= self.deadline {
            return Some(Refusal::TotalTimeout);
        }
        if self.route.retry.per_try.is_some_and(|per_try| now >= self.began + per_try) {
            return Some(Refusal::PerTryTimeout);
        }
        let waiting_since = match self.upload {
            None => self.began,
            Some(upload) => match upload.ended() {
                Some(ended) => ended.max(self.began),
                None => {
                    let timeouts = &self.route.timeouts;
                    let slow = upload.too_slow(now, timeouts.request_body_rate_min, timeouts.request_body_grace);
                    return slow.then_some(Refusal::RequestBodyTimeout);
                }
            },
        };
        (now >= waiting_since + self.route.timeouts.first_byte).then_some(Refusal::FirstByteTimeout)
    }
}
