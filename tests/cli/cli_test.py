"""Tests of the command line. Usage: cli_test.py PROGRAM [GROUP]"""
import pathlib
import sys
import unittest

import harness


def main():
    harness.PALI = str(pathlib.Path(sys.argv[1]).resolve())
    import answers_test
    import batch_test
    import bench_test
    import files_test
    import formats_test
    import locations_test
    import messages_test
    import misuse_test
    import peers_test
    import resume_test
    import usage_test

    modules = [answers_test, batch_test, bench_test, files_test, formats_test, locations_test,
               messages_test, misuse_test, peers_test, resume_test, usage_test]
    groups = {name: case for module in modules for name, case in vars(module).items()
              if isinstance(case, type) and issubclass(case, harness.Case)
              and case is not harness.Case}
    names = sys.argv[2:] or sorted(groups)
    suite = unittest.TestSuite()
    for name in names:
        suite.addTests(unittest.defaultTestLoader.loadTestsFromTestCase(groups[name]))
    result = unittest.TextTestRunner(verbosity=2).run(suite)
    if result.wasSuccessful() and len(result.skipped) == result.testsRun > 0:
        sys.exit(77)  # CTest's "skipped"
    sys.exit(0 if result.wasSuccessful() and result.testsRun > 0 else 1)


main()
