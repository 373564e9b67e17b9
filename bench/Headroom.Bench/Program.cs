using Headroom.Bench;
using Headroom.Core;
using Headroom.Cuda;

try
{
    return Run(args);
}
catch (HeadroomException e)
{
    Console.Error.WriteLine("error: " + e.Message);
    Console.Error.WriteLine("  " + e.ToDo);
    return e.ExitCode;
}

static int Run(string[] args) => args.FirstOrDefault() switch
{
    "decode" or "step" or "chat-rows" when args.Length < 2 || args[1].StartsWith('-') => Usage(), // they need a model
    "gemm" => GemmBench.Run(args[1..]),
    "step-cuda" => CudaStepBench.Run(args[1..]),
    "ops-cuda" => CudaOpsBench.Run(args[1..]),
    "tune-cuda" => CudaTuneBench.Run(args[1..]),
    "decode" => DecodeBench.Run(args[1..]),
    "chat-rows" => ChatRowsBench.Run(args[1..]),
    "load" => LoadBench.Run(args[1..]),
    "step" => StepBench.Run(args[1..]),
    "kernel-headers" when args.Length == 2 => KernelHeaders(args[1]),
    _ => Usage(),
};

// What kernels include and host code is the source of, for a compiler that is not run by this project.
static int KernelHeaders(string folder)
{
    foreach (var (name, text) in KernelHeader.Files) File.WriteAllText(Path.Combine(folder, name), text);
    return 0;
}

static int Usage()
{
    Console.Error.WriteLine(
        "Headroom.Bench gemm [--threads N] [--rounds N] | load MODEL|CONFIG|SIZE_MIB [--device cuda] [--rounds N] "
            + "[--work FOLDER] [--out FILE] | step MODEL [--recompute N] [--steps N] [--chunk N] [--threads N] "
            + "[--profile] | decode MODEL [--tokens N] [--repeats N] | step-cuda CONFIG:ROWSxLENGTH:RECOMPUTE ... "
            + "[--steps N] [--profile] [--kernels] [--answers] [--ragged] [--graphs | --no-graphs] [--no-ahead] "
            + "[--expand MIB] [--expanded MIB] [--chunk ROWS] [--dora] [--dropout P] [--out FILE] | ops-cuda [FILE] | "
            + "tune-cuda [ROWS ...] [--seconds S] | chat-rows TOKENIZER [--seconds S] | kernel-headers FOLDER"
    );
    Console.Error.WriteLine(
        "Each prints a table and, but for chat-rows, writes a CSV under bench/results/; kernel-headers writes sources.");
    return 2;
}
