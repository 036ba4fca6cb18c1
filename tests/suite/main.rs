//! The tests of the whole program, in one binary so that one line tells how they went.

mod capture;
mod cli;
mod docs;
mod doctor;
mod examples;
mod golden;
mod holders;
mod libvirt;
mod live;
mod machines;
mod merging;
mod pictures;
mod properties;
mod reserve;
mod roots;
mod schema;
mod stanza;
mod support;
mod udev;
mod udev_file;
mod validate;
mod watch;
