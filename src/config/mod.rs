//! From the text an operator typed to the settings it means, or to every problem in it.

pub mod settings;
