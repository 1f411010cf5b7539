//! Gives back to the host what nothing needs any more: what glibc keeps of a burst of requests, in
//! an arena for each thread, and the parts of the program that only its start went through.
//!
//! It decides nothing about what acc holds.

/// Freed memory that is worth the look through all arenas, in bytes. Below it is kept for the next
/// request.
#[cfg(target_env = "gnu")]
const WORTH: usize = 512 * 1024;

/// Gives it back if there is much of it. Takes some milliseconds then, in which other threads may
/// wait for memory.
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

/// Other C libraries give it back by themselves.
#[cfg(not(target_env = "gnu"))]
pub fn give_back() {}

/// Lets go of the code and constants of the program and its libraries. What is needed comes back by
/// a fault, from the page cache and not from the disk, 64 KiB at a time; what was needed once
/// (command line, settings, templates, migrations) does not, and the host may use its memory for
/// something else. After the start, and when many connections have come to rest: it costs the next
/// request a tenth of a millisecond.
pub fn let_go_of_program() {
    #[expect(unsafe_code, reason = "a question to the dynamic linker")]
    // SAFETY: the function given is called only within this call, and takes no pointer of ours.
    unsafe {
        libc::dl_iterate_phdr(Some(let_go), std::ptr::null_mut());
    }
}

/// Called for each loaded object, the program itself first; anything but 0 would end it.
#[expect(unsafe_code, reason = "called by the C library")]
unsafe extern "C" fn let_go(
    object: *mut libc::dl_phdr_info,
    _: usize,
    _: *mut libc::c_void,
) -> libc::c_int {
    // SAFETY: the linker gives a valid object, whose table has as many entries as it says. A number
    // is asked for.
    let (base, segments, page) = unsafe {
        let object = &*object;
        let segments = std::slice::from_raw_parts(object.dlpi_phdr, object.dlpi_phnum.into());
        (
            object.dlpi_addr,
            segments,
            libc::sysconf(libc::_SC_PAGESIZE),
        )
    };
    let Some(page) = u64::try_from(page).ok().filter(|page| *page > 0) else {
        return 0;
    };
    // Never what can be written: there the pages are no longer those of the file, also where they
    // have become read-only since.
    for segment in segments
        .iter()
        .filter(|s| s.p_type == libc::PT_LOAD && s.p_flags & libc::PF_W == 0)
    {
        let first = (base + segment.p_vaddr) / page * page;
        let end = (base + segment.p_vaddr + segment.p_memsz).next_multiple_of(page);
        // SAFETY: a private mapping of a file that was never written to: read again, each page is
        // what it was.
        unsafe {
            libc::madvise(
                first as *mut libc::c_void,
                (end - first) as usize,
                libc::MADV_DONTNEED,
            );
        }
    }
    0
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_program_goes_on_without_what_its_start_needed() {
        let mapped = || {
            let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
            let of = |key: &str| {
                text.lines()
                    .find_map(|l| l.strip_prefix(key))
                    .unwrap()
                    .split_whitespace()
                    .next()
                    .unwrap()
                    .parse::<i64>()
                    .unwrap()
            };
            of("Rss:") - of("Anonymous:")
        };
        let before = mapped();
        super::let_go_of_program();
        let after = mapped();
        assert!(after < before, "{before} KiB, then {after}");
    }

    #[test]
    #[cfg(target_env = "gnu")]
    fn what_was_freed_goes_back_to_the_host() {
        let resident = || {
            procfs::process::Process::myself()
                .unwrap()
                .statm()
                .unwrap()
                .resident
                * 4096
        };
        // Held apart, so that the allocator cannot give the end of its heap back by itself; small
        // enough not to be mapped alone.
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
