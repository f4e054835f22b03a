"""`destination import`: a history in files, sent in batches.

sources   which files                       lines     the lines of a file, unpacked
batches   what is sent together             deliver   sends a batch, until it is answered
pace      how fast, and when to give up     state     how far an import has come
tally     what came of it                   progress  shows how it goes
play      all of it, in order               commands  the command, and what it tells at the end
"""
