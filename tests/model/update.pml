// SPDX-License-Identifier: GPL-2.0-or-later
// The update around handoffs: launch, handover, abort, release, commit, retire, adoption, restarts of either agent.
// docs/handoff.md explains it; names of states are those of the code.
//
// A handoff has three steps here: prepared, guest stopped, taken or taken back. handoff.pml shows that it can be cut
// down to these. The rule that this model holds the update to: nothing ends a root while the arena says that it owns
// VMs. BROKEN_... are ways not to keep that rule, and other ways to be wrong.

#ifndef VMS
#define VMS 1
#endif
#ifndef COMMANDS	// that the user gives to the old root
#define COMMANDS 3
#endif
#ifndef BACKS		// VMs that the user asks the new root to hand back
#define BACKS 1
#endif
#ifndef CRASHES		// of an agent, a VMM or a root
#define CRASHES 1
#endif

#define OLD 0
#define NEW 1
#define NOWHERE 2
#define AT(v, r) ((v) * 2 + (r))
#define OTHER(r) (1 - (r))

// State of multiroot/coordinator/states.py, in its order. `begun` and `state` are what the journal says.
mtype:update_state = { idle, planned, carved, offlined, loaded, started, joined, handed_over, committed, retiring };

// AdoptionState of multiroot/coordinator/adoption.py.
mtype:adoption_state = { adoption_none, adoption_waiting, adoption_adopting, adoption_zeroing, adoption_done, adoption_failed };

mtype:update_state begun = idle;	// the newest step whose effects may exist
mtype:update_state state = idle;	// the newest step that is done
mtype:adoption_state adoption = adoption_none;
bool told;				// the new root keeps outside of its agent that it is to adopt
bool ended_by_retire;
bool adopted;		// the agent forgets it, the ledger does not

bool up[2];		// the root's kernel runs
bool down[2];		// its agent has crashed and not noticed yet
bool door_shut;		// the old root takes no VMs any more, for its update is committed

// Per VM.
byte owner[VMS];	// owner word
byte going[VMS];	// a taker in that root waits for it with the current epoch
bool running[VMS * 2];
bool lost[VMS];		// with a root that crashed
bool failed[VMS];	// with its VMM that crashed
bool asked[VMS];	// somebody wants the new root to hand it back
bool refused[VMS];	// and this was the answer

byte crashes = CRASHES;
byte backs = BACKS;

// Which VMs the coordinator finds in the new root; none in a root that it takes for dead or does not know.
#ifdef BROKEN_SILENCE_IS_DEATH
#define SEEN(v) (OWNED(v, NEW) && up[NEW] && !down[NEW])
#elif defined(BROKEN_RESTARTED_AGENT_KNOWS_NO_NEW_ROOT)
#define SEEN(v) (OWNED(v, NEW) && up[NEW] && knows_new_root)
#else
#define SEEN(v) (OWNED(v, NEW) && up[NEW])
#endif
#if VMS > 1
#define SEEN_ANY (SEEN(0) || SEEN(1))
#else
#define SEEN_ANY SEEN(0)
#endif

#define ALIVE(v) (!lost[v] && !failed[v])
#define OWNED(v, r) (owner[v] == (r) && !lost[v])
#if VMS > 1
#define OWNS(r) (OWNED(0, r) || OWNED(1, r))
#else
#define OWNS(r) OWNED(0, r)
#endif

inline run_guest(v, r) {
	d_step {
		assert(!running[AT(v, OTHER(r))]);
		assert(owner[v] == r && up[r]);
		running[AT(v, r)] = true
	}
}

// The one place that all ways to end a root pass through.
inline end_root(r) {
	d_step {
		assert(!(up[r] && OWNS(r)));
		up[r] = false;
		down[r] = true;
		i = 0;
		do
		:: i < VMS ->
			if
			:: going[i] == r -> going[i] = NOWHERE
			:: else
			fi;
			i++
		:: else -> break
		od;
		i = 0
	}
}

// One handoff as the giver sees it; `ok` tells whether the VM is gone from here.
inline hand_over(v, r) {
	ok = false;
	if
	:: atomic { owner[v] == r && running[AT(v, r)] && up[OTHER(r)] && !(OTHER(r) == OLD && door_shut) ->
		going[v] = OTHER(r) };
		if
		:: atomic { running[AT(v, r)] -> running[AT(v, r)] = false }	// the guest stops
		:: skip
		fi;
		// The answer, or whoever waits has enough: the owner word decides.
		if
		:: atomic { owner[v] != r -> ok = true }
		:: atomic { owner[v] == r ->
			going[v] = NOWHERE;
			if
			:: !failed[v] && !running[AT(v, r)] -> run_guest(v, r)
			:: else
			fi }
		fi
	:: !(owner[v] == r && running[AT(v, r)] && up[OTHER(r)] && !(OTHER(r) == OLD && door_shut))
	fi
}

// VmManager.adopt: what this root owns goes on with a new epoch, what it was about to take is ended.
inline adopt_vms(r) {
	d_step {
		i = 0;
		do
		:: i < VMS ->
			if
			:: going[i] == r || owner[i] == r -> going[i] = NOWHERE
			:: else
			fi;
			if
			:: owner[i] == r && ALIVE(i) && !running[AT(i, r)] ->
				assert(!running[AT(i, OTHER(r))]);
				running[AT(i, r)] = true
			:: else
			fi;
			i++
		:: else -> break
		od;
		i = 0
	}
}

// The taker in root `r`, as long as its agent lives; its commit and the guest's going on.
proctype Taker(byte v; byte r) {
end:	do
	:: atomic { going[v] == r && up[r] && !down[r] && ALIVE(v) && !running[AT(v, OTHER(r))] ->
		going[v] = NOWHERE; owner[v] = r; run_guest(v, r) }
	od
}

inline begin(s) { atomic { begun = s } }
inline done(s) { atomic { state = s } }
inline undo(s, below) { atomic { if :: state == s -> state = below :: else fi } }
inline undone(below) { atomic { begun = below } }

// Have the new root hand one VM back; it may not answer.
inline hand_back(v) {
	if
	:: atomic { SEEN(v) -> asked[v] = true; refused[v] = false };
		if
		:: atomic { !OWNED(v, NEW) -> ok = true }
		:: atomic { refused[v] -> ok = false }
		:: atomic { ok = !OWNED(v, NEW) }	// waited long enough
		fi;
		asked[v] = false
	:: atomic { !SEEN(v) -> ok = true }
	fi
}

inline hand_back_all() {
	hand_back(0);
#if VMS > 1
	if
	:: ok -> hand_back(1)
	:: !ok
	fi
#endif
}

// Start.undo: INIT. The guard reads the owner words; a root whose CPUs are parked has lost its VMs already.
inline guarded_end_of_new_root() {
	ok = true;
#ifndef BROKEN_NOTHING_GUARDS_THE_END
	atomic { ok = !SEEN_ANY };
#endif
	if
	:: ok -> end_root(NEW)
	:: !ok
	fi
}

// Coordinator._undo_all, newest step first; stops where going on would lose a VM.
inline undo_all() {
	ok = true;
	do
	:: begun == retiring -> undo(retiring, committed); undone(committed)
	:: begun == committed -> undo(committed, handed_over); open_door(); undone(handed_over)
	:: begun == handed_over ->
		undo(handed_over, joined);
		hand_back_all();
#ifndef BROKEN_NOTHING_GUARDS_THE_END
		if
		:: !ok -> break
		:: ok
		fi;
#endif
		undone(joined)
	:: begun == joined -> undo(joined, started); undone(started)
	:: begun == started ->
		undo(started, loaded);
		guarded_end_of_new_root();
		if
		:: !ok -> break
		:: ok
		fi;
		undone(loaded)
	:: begun == loaded -> undo(loaded, offlined); undone(offlined)
	:: begun == offlined -> undo(offlined, carved); undone(carved)
	:: begun == carved -> undo(carved, planned); undone(planned)
	:: begun == planned -> undo(planned, idle); undone(idle)
	:: begun == idle -> break
	od
}

// Coordinator._bring_up: a step that fails takes all of the launch back.
inline bring_up() {
	ok = true;
	do
	:: state == idle -> begin(planned); if :: done(planned) :: undo_all(); break fi
	:: state == planned -> begin(carved); if :: done(carved) :: undo_all(); break fi
	:: state == carved -> begin(offlined); if :: done(offlined) :: undo_all(); break fi
	:: state == offlined -> begin(loaded); if :: done(loaded) :: undo_all(); break fi
	:: state == loaded -> begin(started);
		if
		:: atomic { up[NEW] = true; down[NEW] = true }; done(started)
		:: undo_all(); break
		fi
	:: state == started -> begin(joined); if :: atomic { up[NEW] -> skip }; done(joined) :: undo_all(); break fi
	:: state != idle && state != planned && state != carved && state != offlined && state != loaded && state != started ->
		break
	od
}

inline hand_over_all() {
	begin(handed_over);
	ok = true;
	if
	:: OWNED(0, OLD) -> hand_over(0, OLD)
	:: !OWNED(0, OLD)
	fi;
#if VMS > 1
	if
	:: ok && OWNED(1, OLD) -> hand_over(1, OLD)
	:: !ok || !OWNED(1, OLD)
	fi;
#endif
	if
	:: ok -> done(handed_over)
	:: !ok
	fi
}

// The VMs that are being taken are given up. Those that are taken are seen by whoever looks afterwards.
inline shut_door() {
	d_step {
		door_shut = true;
		i = 0;
		do
		:: i < VMS -> if :: going[i] == OLD -> going[i] = NOWHERE :: else fi; i++
		:: else -> break
		od;
		i = 0
	}
}

inline open_door() { door_shut = false }

// CommitStep: shut the door, look.
inline commit() {
	begin(committed);
#ifdef BROKEN_LOOKS_BEFORE_SHUTTING_THE_DOOR
	atomic { ok = !OWNS(OLD) };
#endif
#ifndef BROKEN_RETIRES_WITH_OPEN_DOOR
	shut_door();
#endif
#ifndef BROKEN_LOOKS_BEFORE_SHUTTING_THE_DOOR
	atomic { ok = !OWNS(OLD) };
#endif
	if
	:: ok -> done(committed)
	:: !ok -> open_door(); undone(handed_over)
	fi
}

// RetireStep: look, tell the new root, end. What was seen at the commit holds, for the door is shut since then.
inline retire() {
	begin(retiring);
#ifdef BROKEN_LOOKS_BEFORE_SHUTTING_THE_DOOR
	ok = true;
#else
	atomic { ok = !OWNS(OLD) };
#endif
	if
	:: atomic { ok && up[NEW] && !down[NEW] -> told = true; adoption = adoption_waiting };
		if
		:: atomic { ok -> ended_by_retire = true; end_root(OLD) }
		:: ok = false		// its answer is lost, or our kernel does not end
		fi
	:: ok = false
	fi;
	if
	:: !ok -> undo(retiring, committed); undone(committed)
	:: ok -> down[OLD]
	fi
}

// The old root's agent: coordinator.py. It does one thing at a time, others are refused while it is busy.
proctype Coordinator() {
	byte i;
	byte commands = COMMANDS;
	bool ok;
#ifdef BROKEN_RESTARTED_AGENT_KNOWS_NO_NEW_ROOT
	bool knows_new_root = true;
#endif

restart:
	{
		adopt_vms(OLD);
#ifndef BROKEN_RESTARTED_AGENT_OPENS_THE_DOOR
		if
		:: begun == committed || begun == retiring -> shut_door()
		:: else
		fi;
#endif
		// Coordinator.recover
		if
		:: begun == retiring -> undo(retiring, committed); undone(committed)
		:: begun == committed && state == handed_over -> open_door(); undone(handed_over)
		:: else
		fi;
#ifdef BROKEN_RESTARTED_AGENT_KNOWS_NO_NEW_ROOT
		undo_all();
#else
		if
		:: begun == idle || ((state == joined || state == handed_over || state == committed) && up[NEW])
		:: !(begun == idle || ((state == joined || state == handed_over || state == committed) && up[NEW])) -> undo_all()
		fi;
#endif
end:		do
		:: atomic { commands > 0 -> commands-- };
			if
			:: begun == idle -> bring_up()
			:: state == joined || state == handed_over -> hand_over(0, OLD)
#if VMS > 1
			:: state == joined || state == handed_over -> hand_over(1, OLD)
#endif
			// `update`, up to commit or retire
			:: true ->
				bring_up();
				if
				:: state == joined -> hand_over_all()
				:: state != joined
				fi;
				if
				:: state == handed_over -> commit()
				:: state != handed_over
				fi;
				if
				:: state == committed -> retire()
				:: true
				fi
			// `update abort`
			:: state != committed && state != retiring ->
				ok = true;
#ifndef BROKEN_NOTHING_GUARDS_THE_END
				hand_back_all();
#endif
				if
				:: ok -> undo_all()
				:: !ok
				fi
			// `root release`
			:: !SEEN_ANY -> undo_all()
			fi
		:: atomic { commands > 0 -> commands = 0 }
		od
	} unless { atomic { down[OLD] -> door_shut = false; i = 0; ok = false } };
#ifdef BROKEN_RESTARTED_AGENT_KNOWS_NO_NEW_ROOT
	knows_new_root = false;
#endif
	if
	:: !up[OLD]
	:: atomic { up[OLD] -> down[OLD] = false }; goto restart
	fi
}

// The new root's agent: hands back what it is asked for, adopts what the old root leaves.
proctype NewAgent() {
	byte i;
	bool ok;

restart:
	{
		adopt_vms(NEW);
end:		do
		:: atomic { asked[0] && owner[0] == NEW -> asked[0] = false }; hand_over(0, NEW); refused[0] = !ok
		:: atomic { asked[0] && owner[0] != NEW -> asked[0] = false }
#if VMS > 1
		:: atomic { asked[1] && owner[1] == NEW -> asked[1] = false }; hand_over(1, NEW); refused[1] = !ok
		:: atomic { asked[1] && owner[1] != NEW -> asked[1] = false }
#endif
		// A user of the new root.
		:: atomic { backs > 0 && OWNED(0, NEW) -> backs-- }; hand_over(0, NEW)
		:: atomic { backs > 0 -> backs = 0 }

		// Adoption, which an earlier agent may have been told of.
		:: atomic { told && adoption == adoption_none -> adoption = adoption_waiting }
		:: atomic { adoption == adoption_waiting && up[OLD] -> adoption = adoption_failed }	// PARK_S
#ifdef BROKEN_ADOPTS_TOO_EARLY
		:: atomic { adoption == adoption_waiting -> adoption = adoption_adopting };
#else
		:: atomic { adoption == adoption_waiting && !up[OLD] -> adoption = adoption_adopting };
#endif
			assert(!up[OLD]);
			atomic { adoption = adoption_zeroing };
			atomic { adoption = adoption_done; adopted = true; told = false }
		od
	} unless { atomic { down[NEW] -> adoption = adoption_none; i = 0; ok = false } };
end_down:
	atomic { up[NEW] -> down[NEW] = false };
	goto restart
}

inline crash_root(r) {
	d_step {
		up[r] = false; down[r] = true;
		i = 0;
		do
		:: i < VMS ->
			if
			:: owner[i] == r && !failed[i] -> lost[i] = true; running[AT(i, r)] = false
			:: else
			fi;
			if
			:: going[i] == r -> going[i] = NOWHERE
			:: else
			fi;
			i++
		:: else -> break
		od;
		i = 0
	}
}

proctype Faults() {
	byte i;
	do
	:: atomic { crashes > 0 ->
		crashes--;
		if
		:: up[OLD] -> down[OLD] = true
		:: up[NEW] -> down[NEW] = true
		:: up[OLD] && up[NEW] -> crash_root(OLD)
		:: up[NEW] -> crash_root(NEW)
		:: running[AT(0, owner[0])] -> running[AT(0, owner[0])] = false; failed[0] = true
		:: true
		fi }
	:: break
	od
}

// Nothing can happen any more.
inline check(v) {
	if
	:: lost[v] || failed[v] -> assert(!running[AT(v, OLD)] && !running[AT(v, NEW)])
	:: else -> assert(running[AT(v, owner[v])] && up[owner[v]] && !running[AT(v, OTHER(owner[v]))])
	fi
}

init {
	byte v;
	atomic {
		up[OLD] = true; down[NEW] = true;
		do
		:: v < VMS ->
			owner[v] = OLD; going[v] = NOWHERE; running[AT(v, OLD)] = true;
			run Taker(v, OLD); run Taker(v, NEW);
			v++
		:: else -> break
		od;
		run Coordinator(); run NewAgent(); run Faults()
	};
	timeout ->
	d_step {
		check(0);
#if VMS > 1
		check(1);
#endif
		// A root that runs is in the journal, and what a retired one leaves is adopted.
		assert(!up[OLD] || begun != idle || !up[NEW]);
		assert(!(ended_by_retire && up[NEW]) || adopted || (adoption == adoption_failed && told))
	}
}
