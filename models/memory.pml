/* Memory with store buffers, for the models beside this file.
 *
 * A store goes into the buffer of its process and reaches memory at any later time; a load reads memory. That is x86 (TSO) as long
 * as buffers are emptied in order. They are not, here: a relaxed store may overtake earlier stores to other words, as C11 and Arm
 * allow; a release store waits for all that were made before it. What is not modelled is a load that is made early: in the C
 * code every load that others depend on is an acquire, or stands behind a fence.
 *
 * A process never loads a word that it alone writes: it keeps a copy of its own. An atomic operation on such a word is a store like
 * any other here, without the fence that x86 gives with it, so that a fence which only some machines need counts too. One on a
 * word of many writers acts on memory at once, without emptying the buffer.
 *
 * The model that includes this says PROCESSES, WORDS, DEPTH (how much a buffer holds), and by OVERTAKE(WORD) in OVERTAKING which words get relaxed stores.
 */
byte memory[WORDS];
chan buffer[PROCESSES] = [DEPTH] of { byte, byte, bool }; /* word, value, whether it is a release. */

inline relaxed_store(process, place, content)
{
    buffer[process]!place, content, false
}

inline release_store(process, place, content)
{
    buffer[process]!place, content, true
}

/* atomic_thread_fence(memory_order_seq_cst). */
inline fence(process)
{
    empty(buffer[process])
}

#define OVERTAKE(place) :: d_step { buffer[process]??place, value, false -> memory[place] = value; value = 0 }

/* Empties one process's buffer. */
proctype drain(byte process)
{
    byte word, value;
    bool release;
end:
    do
    :: d_step { buffer[process]?word, value, release -> memory[word] = value; word = 0; value = 0; release = false }
    OVERTAKING
    od
}
