//! The tests of the whole program, in one binary so that one line tells how they went.

mod cli;
mod docs;
mod golden;
mod holders;
mod live;
mod machines;
mod roots;
mod schema;
mod support;
