#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| egm_probe_fuzz::run("nodes", data));
