// SPDX-License-Identifier: GPL-2.0-or-later
// The handoff of VMs between two roots: giver, taker, their VMMs, the owner word, and what can go wrong.
// docs/handoff.md explains it; names of states and messages are those of the code.
//
// A step that other parties can see the middle of is more than one statement here, all else is atomic.
// Time is not modelled: whoever waits may give up at any moment.

#ifndef VMS
#define VMS 1
#endif
#ifndef ATTEMPTS	// handoffs that the user asks for, per VM, in either direction
#define ATTEMPTS 2
#endif
#ifndef CRASHES		// of an agent, a VMM or a root, at any step
#define CRASHES 1
#endif
#ifndef LOSSES		// messages or device states lost on the way
#define LOSSES 1
#endif
#ifndef DAMAGES		// device states that arrive changed
#define DAMAGES 1
#endif
#ifndef DUPLICATES	// messages that arrive twice
#define DUPLICATES 0
#endif
#ifndef REFUSALS	// VMMs that load the state and then refuse to run the guest
#define REFUSALS 1
#endif

#define OLD 0
#define NEW 1
#define AT(v, r) ((v) * 2 + (r))
#define OTHER(r) (1 - (r))
#define NOTHING 0

// VmState of multiroot/vm/instance.py; NOTHING: the agent knows no VM of that name.
mtype:vm_state = { starting, running, incoming, frozen, handed, lost, stopped, failed };

// Messages of proto/multiroot/v1/handoff.proto; Refused is any error that a call ends with.
mtype:message = { PrepareRequest, PrepareResponse, TransferRequest, Ready, Taken, AbortRequest, Refused };

// A VMM: no process; the guest runs; it runs and ROMs are on their way; stopped while the state is written;
// stopped and all written; waiting for a state; reading from the connection; state loaded, guest stopped.
mtype:vmm_state = { absent, runs, migrates, writes, wrote, waits, reads, loaded };

// What a root keeps for its next agent: VmRecord without or with a giver.
mtype:record = { own_record, incoming_record };

// The way of the device state, VMM to agent to agent to VMM. All of it is in the giver's agent; the taker's has
// checked it up to the trailer and passed it on.
mtype:wire = { closed, listening, connected, written, complete };

// Taker's dealings with one VM: Incoming of multiroot/handoff/taker.py.
mtype:coming = { idle, prepared, transferring, streaming, taken };

// Memory shared by the roots: the owner words.
byte word_root[VMS];
byte word_epoch[VMS];

// Per VM and root.
mtype:vmm_state vmm[VMS * 2];
bool fresh[VMS * 2];		// the VMM holds the guest as it is now, not as it once was
mtype:record record[VMS * 2];
mtype:vm_state known[VMS * 2];	// the agent's view, lost with the agent
byte mine[VMS * 2];		// epoch that the agent believes to own
bool down[VMS * 2];		// the agent has crashed and not noticed yet

// Per VM.
mtype:wire wire[VMS];
byte key[VMS];			// of the listener
bool written_fresh[VMS];	// the state on the wire is that of the guest as it is now
bool damaged[VMS];		// and it was changed on the way
byte attempts[VMS];
bool busy;			// the coordinator hands over one VM at a time

// Per root.
bool root_dead[2];

// What went wrong, to tell a VM that may be lost from one that may not.
bool guest_died[VMS];		// the VMM with the only true copy of the guest, at its owner, has crashed
bool refused_to_run[VMS];
bool hung_up[VMS];		// a giver found the taker's word before it heard that the taker had failed
byte crashes = CRASHES;
byte losses = LOSSES;
byte damages = DAMAGES;
byte duplicates = DUPLICATES;
byte refusals = REFUSALS;

chan inbox[VMS * 2] = [4] of { mtype:message, byte, byte };	// message, call, epoch or key

#define CAN_HAND_OVER(v, r) \
	(known[AT(v, r)] == running && vmm[AT(v, r)] != absent && attempts[v] < ATTEMPTS && !busy && !root_dead[OTHER(r)])
#define RUNS(at) (vmm[at] == runs || vmm[at] == migrates)
#define ACTIVE(at) (known[at] == starting || known[at] == running || known[at] == incoming || known[at] == frozen)

// A message may get lost or arrive twice; receivers take messages in any order.
inline send(to, what, c, x) {
	if
	:: nfull(inbox[to]) -> inbox[to]!what(c, x)
	:: losses > 0 -> losses--
	:: duplicates > 0 && len(inbox[to]) < 3 ->
		duplicates--; inbox[to]!what(c, x); inbox[to]!what(c, x)
	:: full(inbox[to])
	fi
}

// vCPUs begin to run: the one moment that has to be right.
inline run_guest(v, r) {
	d_step {
		assert(!RUNS(AT(v, OTHER(r))));		// at most one copy runs
		assert(word_root[v] == r);		// and its root owns it
		assert(fresh[AT(v, r)]);		// and it goes on from where the guest stood
		vmm[AT(v, r)] = runs;
		fresh[AT(v, OTHER(r))] = false;
		written_fresh[v] = false
	}
}

// A VMM ends, whoever ends it; the state it has written in full is on its way all the same.
inline end_vmm(v, r) {
	d_step {
		if
		:: vmm[AT(v, r)] == migrates || vmm[AT(v, r)] == writes || vmm[AT(v, r)] == waits || vmm[AT(v, r)] == reads ->
			wire[v] = closed
		:: else
		fi;
		vmm[AT(v, r)] = absent;
		fresh[AT(v, r)] = false
	}
}

// What a taker's agent does with a VM that is not going to be its own.
inline discard(v, r) {
	d_step {
		if
		:: vmm[AT(v, r)] == waits || vmm[AT(v, r)] == reads || wire[v] == listening -> wire[v] = closed
		:: else
		fi;
		vmm[AT(v, r)] = absent;
		fresh[AT(v, r)] = false;
		record[AT(v, r)] = NOTHING;
		known[AT(v, r)] = NOTHING;
		stage = idle
	}
}

// OwnerWord.take, by the taker.
inline take(v, r) {
	if
#ifdef BROKEN_TAKES_WITHOUT_COMPARING
	:: true ->
#else
	:: word_root[v] == OTHER(r) && word_epoch[v] == giver_epoch ->
#endif
		word_root[v] = r; word_epoch[v]++; mine[AT(v, r)] = word_epoch[v]; stage = taken
#ifndef BROKEN_TAKES_WITHOUT_COMPARING
	:: else -> discard(v, r); send(AT(v, OTHER(r)), Refused, served, 0); served = 0
#endif
	fi
}

// The giver, or a new agent, lets the guest go on wherever in its migration the VMM is.
inline go_on(v, r) {
	atomic {
		if
		:: vmm[AT(v, r)] == absent -> known[AT(v, r)] = failed
		:: else ->
			if
			:: vmm[AT(v, r)] == migrates || vmm[AT(v, r)] == writes -> wire[v] = closed
			:: else
			fi;
			if
			:: RUNS(AT(v, r)) -> vmm[AT(v, r)] = runs
			:: else -> run_guest(v, r)
			fi;
			known[AT(v, r)] = running;
			record[AT(v, r)] = own_record
		fi
	}
}

// Another root owns it: whatever runs here must not.
inline adopt_foreign(v, r) {
	atomic {
		end_vmm(v, r);
		if
		:: record[AT(v, r)] == incoming_record -> record[AT(v, r)] = NOTHING; known[AT(v, r)] = NOTHING
		:: else -> known[AT(v, r)] = handed
		fi
	}
}

// The agent is gone: its listener with it, and what it had accepted and not handed to the VMM.
inline agent_ends(v, r) {
	if
	:: (stage == prepared || stage == transferring) && (wire[v] == listening || vmm[AT(v, r)] == waits) ->
		wire[v] = closed
	// And what it had not passed on yet, as the giver's or as the taker's.
	:: (vmm[AT(v, r)] == migrates || vmm[AT(v, r)] == writes || vmm[AT(v, r)] == wrote || vmm[AT(v, r)] == reads) &&
	   (wire[v] == connected || wire[v] == written) ->
		wire[v] = closed
	:: else
	fi;
	if
	:: call != 0 -> busy = false
	:: else
	fi;
	stage = idle; call = 0; served = 0; value = 0; giver_epoch = 0; seen_root = 0; unheard = false;
	mine[AT(v, r)] = 0;
	known[AT(v, r)] = NOTHING
}

// What a VMM does by itself, whether or not an agent lives.
proctype Vmm(byte v; byte r) {
end:	do
	:: atomic { vmm[AT(v, r)] == migrates && wire[v] == connected -> vmm[AT(v, r)] = writes }
	:: atomic { vmm[AT(v, r)] == writes && wire[v] == connected ->
		wire[v] = written; vmm[AT(v, r)] = wrote; written_fresh[v] = true; damaged[v] = false }
	// Writing fails: the guest goes on at once, nobody is asked.
	:: atomic { (vmm[AT(v, r)] == migrates || vmm[AT(v, r)] == writes) && wire[v] != connected -> run_guest(v, r) }
	:: atomic { vmm[AT(v, r)] == reads && wire[v] == complete ->
		vmm[AT(v, r)] = loaded; fresh[AT(v, r)] = written_fresh[v] && !damaged[v]; wire[v] = closed }
	:: atomic { vmm[AT(v, r)] == reads && (wire[v] == closed || wire[v] == listening) -> end_vmm(v, r) }
	od
}

// The relays of both agents: multiroot/handoff/relay.py. They end with either agent, see agent_ends.
proctype Relays(byte v) {
end:	do
	:: atomic { wire[v] == written ->
		if
#ifndef BROKEN_PASSES_ON_UNCHECKED
		:: damaged[v] -> wire[v] = closed
#endif
		:: else -> wire[v] = complete
		fi }
	od
}

// One agent's dealings with one VM: as its giver, as its taker, and after a restart.
proctype Agent(byte v; byte r) {
	mtype:coming stage;
	byte giver_epoch;	// Incoming.giver
	byte call;		// our own call, as the giver
	byte served;		// the giver's call, as the taker
	byte value;
	byte seen_root;
	bool unheard;		// the taker did not answer, as opposed to having refused

restart:
	{
		stage = idle;
		// VmManager.adopt
		if
		:: atomic { record[AT(v, r)] == NOTHING ->
			known[AT(v, r)] = NOTHING;
			// One that was started and not yet written down.
#ifndef BROKEN_UNRECORDED_VMM_STAYS
			end_vmm(v, r)
#endif
		}
		:: atomic { record[AT(v, r)] != NOTHING -> seen_root = word_root[v]; mine[AT(v, r)] = word_epoch[v] };
#ifdef BROKEN_ADOPT_IGNORES_OWNER
			seen_root = r;
#endif
			if
			:: seen_root != r -> adopt_foreign(v, r)
			:: seen_root == r ->
				if
				:: atomic { vmm[AT(v, r)] == absent -> known[AT(v, r)] = failed }
#if defined(BROKEN_ADOPT_IGNORES_OWNER) || defined(BROKEN_ADOPT_KEEPS_EPOCH)
				:: atomic { vmm[AT(v, r)] != absent -> skip }; go_on(v, r)
#else
				:: atomic { vmm[AT(v, r)] != absent && word_root[v] == r && word_epoch[v] == mine[AT(v, r)] ->
					word_epoch[v]++; mine[AT(v, r)] = word_epoch[v] };
					go_on(v, r)
				// Fenced: the taker was faster than we.
				:: vmm[AT(v, r)] != absent && !(word_root[v] == r && word_epoch[v] == mine[AT(v, r)]) ->
#ifdef BROKEN_FENCED_ADOPTION_LEAVES_VMM
					atomic { known[AT(v, r)] = NOTHING }
#else
					adopt_foreign(v, r)
#endif
#endif
				fi
			fi
		fi;

end:		do
		// The VMM of a VM that is here ends by itself: Instance._watch_end.
		:: atomic { known[AT(v, r)] == running && vmm[AT(v, r)] == absent -> known[AT(v, r)] = failed }
		// The owner word, and whether its root lives, tell what has become of a VM that does not run here.
#ifndef BROKEN_HANDED_FOR_EVER
		:: atomic { known[AT(v, r)] == handed && word_root[v] == r -> known[AT(v, r)] = failed }
#endif
#ifndef BROKEN_FAILED_FOR_EVER
		:: atomic { known[AT(v, r)] == failed && word_root[v] != r && stage == idle -> known[AT(v, r)] = handed }
#endif

		// VmState.LOST; a user frees it then.
#ifndef BROKEN_LOST_LOOKS_HANDED
		:: atomic { known[AT(v, r)] == handed && word_root[v] != r && root_dead[word_root[v]] -> known[AT(v, r)] = lost }
#endif

		// The user has had enough.
		:: atomic { known[AT(v, r)] == running && attempts[v] < ATTEMPTS -> attempts[v] = ATTEMPTS }

		// The giver: hand_over in multiroot/handoff/giver.py.
		:: atomic { CAN_HAND_OVER(v, r) ->
			busy = true;
			attempts[v]++;
			call = attempts[v];
			unheard = true;
			send(AT(v, OTHER(r)), PrepareRequest, call, mine[AT(v, r)]) };
			if
			:: atomic { inbox[AT(v, r)]??PrepareResponse(eval(call), value) ->
				if
				:: wire[v] == listening && key[v] == value -> wire[v] = connected
				:: else -> goto settle
				fi }
			:: atomic { inbox[AT(v, r)]??Refused(eval(call), _) -> unheard = false; goto settle }
			:: goto settle
			fi;
			atomic { send(AT(v, OTHER(r)), TransferRequest, call, 0) };
			if
			:: atomic { inbox[AT(v, r)]??Ready(eval(call), _) -> known[AT(v, r)] = frozen }
			:: atomic { inbox[AT(v, r)]??Refused(eval(call), _) -> unheard = false; goto settle }
			:: goto settle
			fi;
			if
			:: atomic { vmm[AT(v, r)] == runs -> vmm[AT(v, r)] = migrates }
			:: vmm[AT(v, r)] != runs -> goto settle
			fi;
			if
			:: atomic { inbox[AT(v, r)]??Taken(eval(call), _) ->
				if
				:: vmm[AT(v, r)] == absent -> goto settle	// it cannot be asked for its figures
				:: else -> end_vmm(v, r); known[AT(v, r)] = handed; goto done
				fi }
			:: atomic { inbox[AT(v, r)]??Refused(eval(call), _) -> unheard = false }
			:: skip
			fi;
settle:
#ifdef BROKEN_NEVER_SETTLES
			goto done;
#endif
#ifdef BROKEN_ENDS_VMM_UNSEEN
			atomic { end_vmm(v, r); known[AT(v, r)] = handed; goto done };
#endif
			if
			// The taker may have the whole state all the same; the word will tell.
			:: atomic { vmm[AT(v, r)] == absent -> known[AT(v, r)] = failed; goto done }
#ifdef BROKEN_RESUMES_WITHOUT_TAKING
			:: vmm[AT(v, r)] != absent
#else
			:: atomic { vmm[AT(v, r)] != absent && word_root[v] == r && word_epoch[v] == mine[AT(v, r)] ->
				word_epoch[v]++; mine[AT(v, r)] = word_epoch[v] }
			:: atomic { vmm[AT(v, r)] != absent && word_root[v] != r ->
#ifndef BROKEN_RESUMES_ALTHOUGH_FENCED
				hung_up[v] = true; end_vmm(v, r); known[AT(v, r)] = handed; goto done
#endif
			}
			// The taker could not run it and gave it back.
			:: atomic { vmm[AT(v, r)] != absent && word_root[v] == r && word_epoch[v] != mine[AT(v, r)] ->
				mine[AT(v, r)] = word_epoch[v] }
#endif
			fi;
			go_on(v, r);
			if
			:: atomic { unheard -> skip }
			:: atomic { !unheard -> send(AT(v, OTHER(r)), AbortRequest, call, 0) }
			fi;
done:			atomic { busy = false; call = 0; unheard = false; value = 0 }

		// The taker: multiroot/handoff/taker.py. First Prepare, which ends what an earlier one left.
		:: atomic { inbox[AT(v, r)]??PrepareRequest(served, value) ->
			if
			:: stage != idle && stage != taken -> discard(v, r)
			:: else
			fi;
			if
			:: !ACTIVE(AT(v, r)) && word_root[v] == OTHER(r) && word_epoch[v] == value ->
				giver_epoch = value; known[AT(v, r)] = starting; vmm[AT(v, r)] = waits; value = 0
			:: else -> send(AT(v, OTHER(r)), Refused, served, 0); served = 0; value = 0; goto end
			fi };
			atomic { record[AT(v, r)] = incoming_record; known[AT(v, r)] = incoming };
			atomic {
				if
				:: vmm[AT(v, r)] == absent -> discard(v, r); send(AT(v, OTHER(r)), Refused, served, 0)
				:: else ->
					stage = prepared; wire[v] = listening; key[v]++;
					send(AT(v, OTHER(r)), PrepareResponse, served, key[v])
				fi;
				served = 0 }
		// Taker._connect, as soon as the giver has come.
		:: atomic { (stage == prepared || stage == transferring) && vmm[AT(v, r)] == waits && wire[v] == connected ->
			vmm[AT(v, r)] = reads }
		:: atomic { inbox[AT(v, r)]??TransferRequest(value, _) ->
			if
			:: stage == prepared -> stage = transferring; served = value
			:: else -> send(AT(v, OTHER(r)), Refused, value, 0)
			fi;
			value = 0 }
		:: atomic { stage == transferring && (vmm[AT(v, r)] == reads || vmm[AT(v, r)] == loaded) ->
#ifdef BROKEN_TAKES_BEFORE_LOADED
			take(v, r)
#else
			stage = streaming;
#endif
			send(AT(v, OTHER(r)), Ready, served, 0) }
		// The commit point.
#ifdef BROKEN_RUNS_BEFORE_TAKING
		:: atomic { stage == streaming && vmm[AT(v, r)] == loaded -> run_guest(v, r) };
			atomic { take(v, r) }
#else
		:: atomic { stage == streaming && vmm[AT(v, r)] == loaded -> take(v, r) }
#endif
		:: atomic { stage == taken && vmm[AT(v, r)] == loaded -> run_guest(v, r); known[AT(v, r)] = running };
			atomic { record[AT(v, r)] = own_record };
			atomic { send(AT(v, OTHER(r)), Taken, served, 0); stage = idle; served = 0 }
		:: atomic { stage == taken && vmm[AT(v, r)] == absent ->
			known[AT(v, r)] = failed; send(AT(v, OTHER(r)), Refused, served, 0); stage = idle; served = 0 }
		// The VMM accepts the state and refuses to run: Takeover._give_back.
		:: atomic { stage == taken && vmm[AT(v, r)] == loaded && refusals > 0 ->
			refusals--; refused_to_run[v] = true; known[AT(v, r)] = failed;
#ifdef BROKEN_FORGETS_BEFORE_GIVING_BACK
			discard(v, r) };
#else
			end_vmm(v, r) };
#endif
			atomic { word_root[v] = OTHER(r); word_epoch[v]++ };
			atomic { discard(v, r); send(AT(v, OTHER(r)), Refused, served, 0); served = 0 }
		// The VMM has ended, the giver's call has, or nobody ever called.
		:: atomic { (stage == prepared || stage == transferring || stage == streaming) ->
			if
			:: vmm[AT(v, r)] == absent && stage != prepared -> send(AT(v, OTHER(r)), Refused, served, 0)
			:: else
			fi;
			discard(v, r); served = 0 }
		:: atomic { inbox[AT(v, r)]??AbortRequest(_, _) ->
			if
			:: stage == prepared || stage == transferring || stage == streaming -> discard(v, r); served = 0
#ifdef BROKEN_ABORTS_WHAT_IS_TAKEN
			:: stage == taken -> discard(v, r); served = 0
#endif
			:: else
			fi }
		// Answers to calls that nobody waits for any more.
		:: atomic { inbox[AT(v, r)]??PrepareResponse(_, _) }
		:: atomic { inbox[AT(v, r)]??Ready(_, _) }
		:: atomic { inbox[AT(v, r)]??Taken(_, _) }
		:: atomic { inbox[AT(v, r)]??Refused(_, _) }
		od
	} unless { atomic { down[AT(v, r)] -> down[AT(v, r)] = false; agent_ends(v, r) } };
	if
	:: root_dead[r]
	:: !root_dead[r] -> goto restart
	fi
}

inline crash_agent(v, r) { down[AT(v, r)] = true }

inline crash_vmm(v, r) {
	vmm[AT(v, r)] != absent ->
	if
	:: fresh[AT(v, r)] && word_root[v] == r -> guest_died[v] = true
	:: else
	fi;
	end_vmm(v, r)
}

// A state written in full may be on its way already, or not.
inline crash_root(v, r) {
	down[AT(v, r)] = true;
	if
	:: vmm[AT(v, r)] == wrote && (wire[v] == written || wire[v] == complete) -> wire[v] = closed
	:: true
	fi;
	end_vmm(v, r)
}

proctype Faults() {
	byte r;
	do
	:: atomic { crashes > 0 ->
		crashes--;
		if
		:: r = OLD
		:: r = NEW
		fi;
		if
		:: !root_dead[r] -> crash_agent(0, r)
#if VMS > 1
			; crash_agent(1, r)
#endif
		:: !root_dead[OLD] && !root_dead[NEW] -> root_dead[r] = true; crash_root(0, r)
#if VMS > 1
			; crash_root(1, r)
#endif
		:: root_dead[r]		// nothing is left to crash
		:: crash_vmm(0, r)
#if VMS > 1
		:: crash_vmm(1, r)
#endif
		fi }
	:: atomic { losses > 0 && (wire[0] == connected || wire[0] == written) -> losses--; wire[0] = closed }
	:: atomic { damages > 0 && wire[0] == written && !damaged[0] -> damages--; damaged[0] = true }
#if VMS > 1
	:: atomic { losses > 0 && (wire[1] == connected || wire[1] == written) -> losses--; wire[1] = closed }
	:: atomic { damages > 0 && wire[1] == written && !damaged[1] -> damages--; damaged[1] = true }
#endif
	:: break
	od
}

// Nothing can happen any more: whose is the VM?
inline check(v) {
	r = word_root[v];
	assert(!RUNS(AT(v, OTHER(r))));
	if
	:: root_dead[r]		// lost with its root, as the ledger shows
	:: !root_dead[r] && RUNS(AT(v, r)) -> assert(known[AT(v, r)] == running)
	:: else ->
		assert(known[AT(v, r)] == failed && vmm[AT(v, r)] == absent);
		// Only the death of its VMM may cost a VM, or a VMM that will not run it when its giver has hung up.
		assert(guest_died[v] || (refused_to_run[v] && hung_up[v]) || (refused_to_run[v] && crashes < CRASHES))
	fi;
	if
	:: root_dead[OTHER(r)]
	:: else ->
		if
		:: known[AT(v, OTHER(r))] == NOTHING
		:: known[AT(v, OTHER(r))] != NOTHING && root_dead[r] -> assert(known[AT(v, OTHER(r))] == lost)
		:: known[AT(v, OTHER(r))] != NOTHING && !root_dead[r] -> assert(known[AT(v, OTHER(r))] == handed)
		fi;
		assert(vmm[AT(v, OTHER(r))] == absent)	// nothing is left behind
	fi
}

init {
	byte v, r;
	atomic {
		do
		:: v < VMS ->
			word_root[v] = OLD; word_epoch[v] = 1; wire[v] = closed;
			vmm[AT(v, OLD)] = runs; fresh[AT(v, OLD)] = true;
			vmm[AT(v, NEW)] = absent;
			record[AT(v, OLD)] = own_record; known[AT(v, OLD)] = running; mine[AT(v, OLD)] = 1;
			run Vmm(v, OLD); run Vmm(v, NEW); run Relays(v); run Agent(v, OLD); run Agent(v, NEW);
			v++
		:: else -> break
		od;
		run Faults()
	};
	timeout ->
	d_step {
		v = 0;
		do
		:: v < VMS -> check(v); v++
		:: else -> break
		od
	}
}
