#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some(plan) = ringfence::fuzz::plan(bytes) {
        keeper::takes(plan);
    }
});
