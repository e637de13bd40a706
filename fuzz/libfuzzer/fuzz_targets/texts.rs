#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| driftmesh_fuzz::targets::texts::run(data));
