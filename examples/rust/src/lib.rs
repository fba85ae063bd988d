//! A plugin in Rust: a thread of its own publishes ten blocks of the chain dev. The structures are those of include/supervm/.

use std::ffi::c_void;
use std::os::raw::{c_char, c_int};
use std::ptr::null;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::sync::Mutex;
use std::thread::JoinHandle;

const UNKNOWN: u64 = u64::MAX;
const OK: i32 = 0;

#[repr(C)]
struct Vtable {
    log: extern "C" fn(c_int, *const c_char),
    submit_tx: extern "C" fn(*const c_char, *const u8, usize) -> c_int,
    report_metric: extern "C" fn(*const c_char, f64) -> c_int,
    request_shutdown: extern "C" fn(c_int) -> c_int,
    abi_major: u32,
    abi_minor: u32,
    struct_size: u32,
    reserved: u32,
    get_extension: extern "C" fn(*const c_char) -> *const c_void,
}

#[repr(C)]
struct Block {
    struct_size: u32,
    flags: u32,
    height: u64,
    final_height: u64,
    time: i64,
    hash: *const u8,
    parent: *const u8,
    weight: *const u8,
    position: *const u8,
    payload: *const u8,
    hash_length: u32,
    parent_length: u32,
    position_length: u32,
    reserved: u32,
    payload_length: u64,
}

#[repr(C)]
struct Sink {
    struct_size: u32,
    reserved: u32,
    max_payload: u64,
    host: *mut c_void,
    publish: extern "C" fn(*mut c_void, *const Block) -> i32,
    between: [*const c_void; 8],
    end_of_input: extern "C" fn(*mut c_void) -> i32,
}

static HOST: AtomicPtr<Vtable> = AtomicPtr::new(std::ptr::null_mut());
static SINK: AtomicPtr<Sink> = AtomicPtr::new(std::ptr::null_mut());
static STOPPING: AtomicBool = AtomicBool::new(false);
static THREAD: Mutex<Option<JoinHandle<()>>> = Mutex::new(None);

const MANIFEST: &[u8] = b"{\"id\": \"org.supervm.example-rust\", \"name\": \"Rust example\", \"version\": \"0.1.0\", \"chain\": \"dev\", \"capabilities\": [\"block_stream\"]}\0";

/// A text that ends in NUL.
fn text(bytes: &'static [u8]) -> *const c_char {
    bytes.as_ptr() as *const c_char
}

fn id(height: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&height.to_le_bytes());
    bytes
}

fn publish(sink: &Sink, height: u64) -> i32 {
    let (hash, parent, payload) = (id(height), id(height - 1), format!("block {height}, from Rust"));
    let position = height.to_le_bytes();
    let block = Block {
        struct_size: std::mem::size_of::<Block>() as u32,
        flags: 0,
        height,
        final_height: UNKNOWN,
        time: i64::MIN,
        hash: hash.as_ptr(),
        parent: parent.as_ptr(),
        weight: null(),
        position: position.as_ptr(),
        payload: payload.as_ptr(),
        hash_length: 32,
        parent_length: 32,
        position_length: 8,
        reserved: 0,
        payload_length: payload.len() as u64,
    };
    (sink.publish)(sink.host, &block)
}

fn work() {
    let sink = unsafe { &*SINK.load(Ordering::Acquire) };
    for height in 1..=10 {
        if STOPPING.load(Ordering::Relaxed) || publish(sink, height) != OK {
            return;
        }
    }
    (sink.end_of_input)(sink.host);
}

#[no_mangle]
pub extern "C" fn plugin_get_manifest_json() -> *const c_char {
    text(MANIFEST)
}

#[no_mangle]
pub extern "C" fn plugin_free_string(_text: *mut c_char) {}

#[no_mangle]
pub extern "C" fn plugin_init(vtable: *mut c_void) -> c_int {
    let host = vtable as *mut Vtable;
    HOST.store(host, Ordering::Release);
    let sink = unsafe { ((*host).get_extension)(text(b"supervm.block_sink/1\0")) };
    SINK.store(sink as *mut Sink, Ordering::Release);
    if sink.is_null() { 1 } else { 0 }
}

#[no_mangle]
pub extern "C" fn plugin_start() -> c_int {
    unsafe { ((*HOST.load(Ordering::Acquire)).log)(2, text(b"hello from Rust\0")) };
    match std::thread::Builder::new().name("publisher".into()).spawn(work) {
        Ok(thread) => *THREAD.lock().unwrap() = Some(thread),
        Err(_) => return 2,
    }
    0
}

#[no_mangle]
pub extern "C" fn plugin_stop() -> c_int {
    STOPPING.store(true, Ordering::Relaxed);
    if let Some(thread) = THREAD.lock().unwrap().take() {
        let _ = thread.join();
    }
    0
}
