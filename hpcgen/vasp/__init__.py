"""One structure through VASP: inputs, jobs under custodian, corrections, and whether the result can be trusted.

    inputs.py    what is computed, and Materials Project's input sets for each step, with the user's settings
    site.py      what a site must have before anything is begun
    jobs.py      a step as a custodian job: clean start, hand-over of geometry and corrections to the next
    handlers.py  Materials Project's error handlers and validators, and the one that stops VASP in time
    resume.py    where the next attempt goes on
    outputs.py   what a run of VASP computed, from its files
    verdict.py   our own test of success, and names for everything that goes wrong
    tidy.py      compressing outputs, dropping big files
    task.py      all of it together: one attempt at one structure, in a slot (`hpcgen.slots`)
    many.py      many structures in slots, as the stages have it

The only room that imports custodian. Modules that need it are imported when they are used, so that everything else
works where it is not installed.
"""
