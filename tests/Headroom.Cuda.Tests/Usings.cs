global using Xunit;
[assembly: Xunit.v3.Parallelization(MaxThreads = 1)]
