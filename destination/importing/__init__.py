"""`destination import`: send a history in files, in batches.

sources   the files to read                 lines     the lines of a file, unpacked
batches   messages that are sent together   deliver   sends a batch until it is answered
pace      the speed, and when to give up    state     the progress of an import
tally     the results                       progress  shows the progress
play      the whole import, in order        report    the report at the end
"""
