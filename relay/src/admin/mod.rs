//! How the relay is watched and told what to do: `ctl`'s socket, `/metrics`, `/alive`, `/ready`.

pub mod control;
pub mod metric;
pub mod monitor;
