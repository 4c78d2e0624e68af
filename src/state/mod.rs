//! What survives a reload: counters with an identity. A plan holds handles into here; nothing here holds a plan.

pub mod breaker;
pub mod budget;
pub mod clock;
pub mod dependency;
pub mod endpoint;
pub mod hold;
pub mod journal;
pub mod lifecycle;
pub mod limit;
pub mod places;
pub mod states;
pub mod store;
pub mod switch;
