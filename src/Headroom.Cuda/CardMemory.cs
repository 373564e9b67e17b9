using Headroom.Core;
using Headroom.Cuda.Interop;

namespace Headroom.Cuda;

/// <summary>
/// What the management library says of a card's memory and the process's share of it, and what is said when it is too
/// little. Sizes in bytes; -1 = not known.
/// </summary>
internal static unsafe class CardMemory
{
    /// <summary>
    /// The whole card's memory, or null when the library does not say, or when MIG has split the card: then it speaks
    /// of all its parts.
    /// </summary>
    public static Nvml.Memory? Read(int ordinal) => Ask<Nvml.Memory?>(() =>
    {
        if (
            !Handle(ordinal, out nint card)
            || Nvml.nvmlDeviceGetMigMode(card, out uint mig, out _) == 0 && mig == 1
        )
            return null;
        return Nvml.nvmlDeviceGetMemoryInfo(card, out var memory) == 0 ? memory : null;
    }, null);

    /// <summary>
    /// Bytes in use by all processes, with what the driver has reserved; it differs from the driver's own figure, so
    /// only differences to another reading mean something.
    /// </summary>
    public static long Used(int ordinal) => Read(ordinal) is { } m ? (long)m.Used : -1;

    /// <summary>Bytes that no process uses.</summary>
    public static long Free(int ordinal) => Read(ordinal) is { } m ? (long)m.Free : -1;

    /// <summary>
    /// Bytes of this process as the library lists it; -1 too where it lists other ids (containers hide them).
    /// </summary>
    public static long Listed(int ordinal) => Ask(() =>
    {
        if (!Handle(ordinal, out nint card)) return -1;
        uint count = 64;
        Nvml.ProcessInfo* infos = stackalloc Nvml.ProcessInfo[64];
        if (Nvml.nvmlDeviceGetComputeRunningProcesses(card, ref count, infos) != 0) return -1;
        for (int i = 0; i < count; i++)
            if (infos[i].Pid == (uint)Environment.ProcessId && infos[i].UsedBytes < long.MaxValue)
                return (long)infos[i].UsedBytes;
        return -1;
    }, -1L);

    /// <summary>
    /// By how much the card's use has grown between two readings of <see cref="Used"/>. Less use than before says that
    /// another process has gone, and nothing of this one: not known.
    /// </summary>
    public static long Growth(long before, long now) => before >= 0 && now >= before ? now - before : -1;

    /// <summary>The refusal to open a device that has too little left for what it needs before a model.</summary>
    public static HeadroomException TooFullToOpen(string name, long free, long needed) =>
        new(
            $"{name} has {(free < 0 ? "too little memory" : $"{MiB(free)} MiB")} free; {MiB(needed)} MiB are needed "
                + $"before a model.",
            "Close the program that holds the memory, or run with --device cpu.");

    /// <summary>The refusal of a plan for which too little is left.</summary>
    public static HeadroomException TooFullForPlan(string name, long free, long needed) =>
        new(
            $"The plan needs {MiB(needed)} MiB more on {name}, of which {MiB(free)} MiB are free.",
            "Close the program that holds the memory, or plan for less: see headroom plan --vram.");

    private static string MiB(long bytes) => $"{bytes / 1048576.0:F0}";

    // By the place on the bus: the library numbers all cards in that order, the driver only those it may see, in an
    // order of its own.
    private static bool Handle(int ordinal, out nint card)
    {
        card = 0;
        byte* place = stackalloc byte[32];
        return NativeLibraries.Find("nvml") != null
            && Nvml.nvmlInit() == 0
            && Driver.cuDeviceGet(out int device, ordinal) == 0
            && Driver.cuDeviceGetPCIBusId(place, 32, device) == 0
            && Nvml.nvmlDeviceGetHandleByPciBusId(place, out card) == 0;
    }

    // The library is optional, so one that lacks a function (too old, or another under its name) does not say.
    private static T Ask<T>(Func<T> question, T unknown)
    {
        try
        {
            return question();
        }
        catch (EntryPointNotFoundException)
        {
            return unknown;
        }
    }
}
