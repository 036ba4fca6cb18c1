//! The programs in `examples`, run on recorded hosts.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use egm_probe::sysroot::Sysroot;

use crate::support;

#[allow(dead_code)]
#[path = "../../examples/device_plugin.rs"]
mod device_plugin;
#[allow(dead_code)]
#[path = "../../examples/exporter.rs"]
mod exporter;

fn host(machine: &str) -> Sysroot {
    Sysroot::capture(&support::machine(machine)).unwrap()
}

fn whole_within(machine: &str, gpus: &[&str]) -> String {
    let gpus = gpus.iter().map(|gpu| gpu.parse().unwrap()).collect();
    let mut out = Vec::new();
    device_plugin::write_whole(&mut out, &host(machine), &gpus).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn a_device_plugin_gets_the_regions_whose_gpus_it_has() {
    let egm4 = "egm4 state=in-use device=/dev/egm4 node=0 bytes=479962595328\n";
    let egm5 = "egm5 state=free device=/dev/egm5 node=1 bytes=479962595328\n";
    let gpus = ["0008:01:00.0", "0009:01:00.0", "0018:01:00.0", "0019:01:00.0"];
    assert_eq!(whole_within("claims-vm", &gpus), [egm4, egm5].concat());
    assert_eq!(whole_within("claims-vm", &gpus[1..]), egm5);
    assert_eq!(whole_within("claims-vm", &gpus[1..3]), "");
    assert_eq!(whole_within("gb300-egm-off", &gpus), "");

    // egm4 lists one GPU, and the unbound one also belongs to it.
    let small = "state=free device=/dev/egm4 node=0 bytes=67108864\n";
    assert_eq!(whole_within("gb200-gpu-unbound", &gpus[1..2]), "");
    assert_eq!(whole_within("gb200-gpu-unbound", &gpus[..2]), format!("egm4 {small}"));
}

#[test]
fn an_exporter_serves_the_metrics() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let ask = |request: &'static str| {
        let asking = thread::spawn(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        });
        exporter::answer(&listener.accept().unwrap().0, &host("claims-vm")).unwrap();
        asking.join().unwrap()
    };
    let answer = ask("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
    let args = ["--from", ".", "metrics"];
    assert_eq!(body, support::run(args.into_iter(), &support::fixtures().join("claims-vm")));

    assert!(ask("GET / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404 "));
    assert!(ask("POST /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405 "));
}
