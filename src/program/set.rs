//! Loaded programs and their maps, and the directory in which a generation of them is pinned.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::process;

use libbpf_rs::MapHandle;

use super::Program;
use super::generation::{Generation, remove_tree};
use super::loader::open_map;
use crate::sys::prog;
use crate::{Error, Result};

/// The maps that belong to one generation alone (`.rodata`, `.bss`, scratch maps), below its directory.
const OWN_MAPS: &str = "maps";

/// Programs that are in the kernel, with the maps they use. Dropping it changes no pin and no attachment.
#[derive(Debug, Default)]
pub struct ProgramSet {
    programs: BTreeMap<String, Program>,
    shared: BTreeMap<String, MapHandle>,
    own: BTreeMap<String, MapHandle>,
    generation: Generation,
    adopted_from: Option<PathBuf>,
}

impl ProgramSet {
    /// The program of this name.
    pub fn program(&self, name: &str) -> Result<&Program> {
        self.programs.get(name).ok_or_else(|| Error::not_found("program", name))
    }

    /// Every program, in the order of their names.
    pub fn programs(&self) -> impl Iterator<Item = &Program> {
        self.programs.values()
    }

    /// The descriptor of a map: a shared one by its name, a section's as `<object>.bss` or `<object>.rodata`.
    pub fn map_fd(&self, name: &str) -> Result<BorrowedFd<'_>> {
        self.map(name).map(AsFd::as_fd).ok_or_else(|| Error::not_found("map", name))
    }

    /// The names of all maps, shared ones first.
    pub fn map_names(&self) -> impl Iterator<Item = &str> {
        self.shared.keys().chain(self.own.keys()).map(String::as_str)
    }

    /// What identifies this set.
    pub fn generation(&self) -> &Generation {
        &self.generation
    }

    /// Whether the programs were found pinned rather than loaded.
    pub fn adopted(&self) -> bool {
        self.adopted_from.is_some()
    }

    pub(super) fn insert_program(&mut self, program: Program) {
        self.programs.insert(program.name().to_owned(), program);
    }

    pub(super) fn insert_shared_map(&mut self, name: String, map: MapHandle) {
        self.shared.insert(name, map);
    }

    pub(super) fn insert_own_map(&mut self, name: String, map: MapHandle) {
        self.own.insert(name, map);
    }

    pub(super) fn with_generation(self, generation: Generation) -> Self {
        Self { generation, ..self }
    }

    pub(super) fn map(&self, name: &str) -> Option<&MapHandle> {
        self.shared.get(name).or_else(|| self.own.get(name))
    }

    /// Pins programs and own maps as `<programs>/<generation>`. The directory gets its name when it is complete; one of
    /// that name that is not complete is replaced.
    pub(super) fn pin(&self, programs: &Path) -> Result<()> {
        let unfinished = programs.join(format!("unfinished_{}", process::id()));
        remove_tree(&unfinished)?;
        let result = self.pin_into(&unfinished).and_then(|()| {
            let target = programs.join(self.generation.as_str());
            remove_tree(&target)?;
            fs::rename(&unfinished, &target)
                .map_err(|error| Error::system("rename pins to", target.display().to_string(), error))
        });
        if result.is_err()
            && let Err(error) = remove_tree(&unfinished)
        {
            log::warn!("{error}");
        }
        result
    }

    /// A set to be filled from the pins in this directory.
    pub(super) fn adopted_from(generation: &Path) -> Self {
        Self { adopted_from: Some(generation.to_owned()), ..Self::default() }
    }

    /// Opens a pinned program; false when there is none.
    pub(super) fn adopt_program(&mut self, name: &str) -> Result<bool> {
        let Some(path) = self.adopted_from.as_ref().map(|dir| dir.join(name)).filter(|path| path.exists()) else {
            return Ok(false);
        };
        self.insert_program(Program::open_pinned(&path)?);
        Ok(true)
    }

    /// Opens a pinned map, at `shared` or else among the generation's own; false when there is none.
    pub(super) fn adopt_map(&mut self, name: &str, shared: Option<&Path>) -> Result<bool> {
        let own = self.adopted_from.as_ref().map(|dir| dir.join(OWN_MAPS).join(pin_name(name)));
        let Some(path) = shared.or(own.as_deref()) else { return Ok(false) };
        let Some(map) = open_map(path)? else { return Ok(false) };
        let maps = if shared.is_some() { &mut self.shared } else { &mut self.own };
        maps.insert(name.to_owned(), map);
        Ok(true)
    }

    fn pin_into(&self, dir: &Path) -> Result<()> {
        let maps = dir.join(OWN_MAPS);
        fs::create_dir_all(&maps)
            .map_err(|error| Error::system("create directory", maps.display().to_string(), error))?;
        for program in self.programs() {
            program.pin(&dir.join(program.name()))?;
        }
        for (name, map) in &self.own {
            let path = maps.join(pin_name(name));
            prog::pin(map.as_fd(), &path)
                .map_err(|error| Error::system("pin map at", path.display().to_string(), error))?;
        }
        Ok(())
    }
}

/// A bpffs takes no names with dots, which the maps of sections have.
fn pin_name(map: &str) -> String {
    map.replace('.', "_")
}
