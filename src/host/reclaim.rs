//! Returns memory to the host that glibc keeps after a burst of requests, in an arena for each
//! thread.
//!
//! It does not affect memory in use.

/// Bytes of freed memory that are worth a pass over all arenas. Less is kept for the next request.
#[cfg(target_env = "gnu")]
const WORTH: usize = 512 * 1024;

/// Returns freed memory if there is much of it. That takes some milliseconds, in which other
/// threads may wait for memory.
#[cfg(target_env = "gnu")]
pub fn give_back() {
    #[expect(unsafe_code, reason = "questions to the C library's allocator")]
    // SAFETY: both take no pointers and may be called at any time from any thread.
    unsafe {
        if libc::mallinfo2().fordblks > WORTH {
            libc::malloc_trim(64 * 1024);
        }
    }
}

/// Other C libraries return it by themselves.
#[cfg(not(target_env = "gnu"))]
pub fn give_back() {}

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    #[test]
    fn what_was_freed_goes_back_to_the_host() {
        let resident = || {
            procfs::process::Process::myself()
                .unwrap()
                .statm()
                .unwrap()
                .resident
                * 4096
        };
        // Held in separate blocks, so that the allocator cannot return the end of its heap by
        // itself; small enough not to be mapped separately.
        let mut kept = Vec::new();
        let blocks: Vec<Vec<u8>> = (0..1024)
            .map(|n| {
                kept.push(Box::new(n));
                vec![1_u8; 100 * 1024]
            })
            .collect();
        let full = resident();
        drop(blocks);
        super::give_back();
        let empty = resident();
        assert!(full - empty > 50 * 1024 * 1024, "{full} {empty}");
        drop(kept);
    }
}
