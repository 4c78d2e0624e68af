//! What the two HTTP/1 targets share: their way to talk with our engine, a plain second reader, and what the differential
//! tests compare with. Those modules are taken from the tests as they are, so that both judge by the same list.

#[path = "../../tests/http1_differential/compare.rs"]
pub mod compare;
#[path = "../../tests/http1_differential/hyper_side.rs"]
pub mod hyper_side;
#[path = "../../tests/http1_differential/our_side.rs"]
pub mod our_side;
pub mod plain;
pub mod talk;

use compare::{Reading, Seen};
