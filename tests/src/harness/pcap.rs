//! Writes pcap files (the classic format, little endian, microseconds, Ethernet), bounded in frames.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

/// Frames of one file; what comes later is not written.
const FRAMES_MAX: u32 = 20_000;
const MAGIC_MICROSECONDS: u32 = 0xa1b2_c3d4;
const LINK_TYPE_ETHERNET: u32 = 1;

/// A pcap file that is being written.
#[derive(Debug)]
pub struct PcapWriter {
    file: File,
    frames: u32,
}

impl PcapWriter {
    /// Makes the file and writes its header.
    pub fn create(path: &Path) -> Result<PcapWriter> {
        let mut file =
            File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
        let (version, zone, accuracy, snap_len) = (0x0004_0002, 0, 0, 65_535);
        let header = [
            MAGIC_MICROSECONDS,
            version,
            zone,
            accuracy,
            snap_len,
            LINK_TYPE_ETHERNET,
        ];
        file.write_all(header.map(u32::to_le_bytes).as_flattened())?;
        Ok(PcapWriter { file, frames: 0 })
    }

    /// Adds a frame of which perhaps only the first bytes were kept.
    pub fn write(&mut self, bytes: &[u8], wire_len: usize) -> Result<()> {
        if self.frames == FRAMES_MAX {
            return Ok(());
        }
        self.frames += 1;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let (secs, micros) = (now.as_secs() as u32, now.subsec_micros());
        let header = [secs, micros, bytes.len() as u32, wire_len as u32];
        // One write for each frame, so that whoever reads the file meanwhile sees whole ones.
        let record = [header.map(u32::to_le_bytes).as_flattened(), bytes].concat();
        Ok(self.file.write_all(&record)?)
    }
}
