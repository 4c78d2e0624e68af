//! Outrigger: a sidecar reverse proxy that makes any HTTP app production-ready without changing its code.
//!
//! Reading order, from the pure decisions up to the process:
//! [`core`] decides, [`http`] is HTTP/1 as a pure codec, [`config`] reads what the operator wrote, [`telemetry`] and [`upstream`] do the outside work,
//! [`state`] outlives a reload, [`plan`] is one immutable compiled configuration, [`proxy`] is the path of a request
//! (start reading at [`proxy::handle`]), [`serve`] and [`admin`] own the sockets, [`app`] wires everything together.
//! The floors and who may import whom are held by `tests/tidy.rs`; ARCHITECTURE.md is the map.
#![forbid(unsafe_code)]

pub mod core;
pub mod http;

pub mod config;
pub mod telemetry;
pub mod upstream;

pub mod state;

pub mod plan;

pub mod proxy;

pub mod admin;
pub mod serve;

pub mod app;
