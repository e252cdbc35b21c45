# Imports a module that was sent with the job.
import helper
print(helper.answer())
