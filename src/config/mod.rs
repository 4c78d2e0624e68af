//! From the text an operator typed to the settings it means, or to every problem in it.
//!
//! `yaml` makes a tree whose every node knows its place; `env` fills variables in; `reader` asks the tree for keys and
//! collects what is wrong, what was unknown and, for the schema and the reference, what can be asked; `read_*` ask;
//! `check` compares what was read with itself; `load` puts it together.

pub mod load;
pub mod problem;
pub mod settings;

mod check;
mod context;
mod known;
mod read;
mod read_breaker;
mod read_concurrency;
mod read_limit;
mod read_listener;
mod read_readiness;
mod read_retry;
mod read_route;
mod read_switches;
mod read_upstream;

mod env;
mod reader;
mod units;
mod words;
mod yaml;

mod describe;
mod not_yet;

pub use describe::{json_schema, reference_markdown, reference_yaml};
pub use load::{Loaded, Origins, from_upstream, load_file, load_text};
pub use not_yet::{NOT_YET, NotYet};
pub use problem::{Kind, Location, Problem};
pub use units::duration as parse_duration;
