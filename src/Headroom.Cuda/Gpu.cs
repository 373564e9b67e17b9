using Headroom.Core;
using Headroom.Cuda.Interop;
using Headroom.Cuda.Resources;

namespace Headroom.Cuda;

/// <summary>
/// One kernel argument: eight bytes by value, or the address of a struct that outlives the launch call.
/// </summary>
internal readonly unsafe struct Arg
{
    private readonly ulong _value;
    private readonly void* _struct;

    private Arg(ulong value, void* at = null)
    {
        _value = value;
        _struct = at;
    }

    /// <summary>A struct argument; <paramref name="at"/> must be on the caller's stack.</summary>
    public static Arg Struct(void* at) => new(0, at);
    public static implicit operator Arg(Tensor t) => new((ulong)t.Address);
    public static implicit operator Arg(nint v) => new((ulong)v);
    public static implicit operator Arg(long v) => new((ulong)v);
    public static implicit operator Arg(int v) => new((uint)v);
    public static implicit operator Arg(float v) => new(BitConverter.SingleToUInt32Bits(v));

    /// <summary>Where the driver reads it; <paramref name="slot"/> is this argument's own place.</summary>
    public static void* Place(Arg* slot) => slot->_struct != null ? slot->_struct : &slot->_value;
}

/// <summary>
/// A 32-bit word on the device that kernels read in place of an argument; it is written in the order of the main
/// stream, and only when it changes.
/// </summary>
internal sealed class DeviceWord(Gpu gpu, nint address)
{
    private uint? _value;

    /// <summary>Where kernels read it.</summary>
    public nint Address => address;

    /// <summary>What later launches read.</summary>
    public void Set(uint value)
    {
        if (_value == value) return;
        gpu.OutsideRecord();
        _value = null;
        CudaException.Check(
            Driver.cuMemsetD32Async(address, value, 1, gpu.Main.Value), nameof(Driver.cuMemsetD32Async));
        _value = value;
    }
}

/// <summary>
/// The seed and step of dropout that the kernels of a module read: the step, and the keys of Philox's ten rounds (key,
/// key + W, key + 2 W ..., W the two increments).
/// </summary>
internal sealed class DropoutState
{
    private readonly DeviceWord _step;
    private readonly DeviceWord[] _keys = new DeviceWord[2 * Philox.Rounds];

    public DropoutState(Gpu gpu, nint step, nint keys)
    {
        _step = new DeviceWord(gpu, step);
        for (int i = 0; i < _keys.Length; i++) _keys[i] = new DeviceWord(gpu, keys + 4 * i);
    }

    /// <summary>What later launches read.</summary>
    public void Set(ulong seed, uint step)
    {
        _step.Set(step);
        for (int round = 0; round < Philox.Rounds; round++)
        {
            _keys[2 * round].Set((uint)seed + (uint)round * Philox.W0);
            _keys[2 * round + 1].Set((uint)(seed >> 32) + (uint)round * Philox.W1);
        }
    }
}

/// <summary>The context, streams and compiled kernels of one device; every launch goes through here.</summary>
internal sealed unsafe class Gpu : IDisposable
{
    [ThreadStatic] private static nint t_current;
    private readonly PrimaryContext _context;
    private readonly KernelCompiler _compiler;
    private readonly Dictionary<(string, DType, int), CudaModule> _modules = [];
    private readonly Dictionary<(string, DType, int, string), nint> _functions = [];
    private readonly Dictionary<(string, DType, int), DropoutState> _dropout = [];
    private bool _disposed;

    /// <summary>The newest CUDA that the driver knows and, on Linux, the version of its kernel module.</summary>
    public string DriverVersion { get; }

    // "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  ..."
    private static string KernelModule()
    {
        const string path = "/proc/driver/nvidia/version";
        try
        {
            string line = File.ReadLines(path).FirstOrDefault() ?? "";
            return
                line.Split(' ').FirstOrDefault(w => w.Contains('.') && w.All(c => char.IsAsciiDigit(c) || c == '.'))
                    is { } version
                ? ", driver " + version
                : "";
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return "";
        }
    }

    public Gpu(int ordinal)
    {
        NativeLibraries.Register();
        CudaException.Check(Driver.cuDeviceGet(out int device, ordinal), nameof(Driver.cuDeviceGet));
        Driver.cuDeviceGetAttribute(out int major, Driver.ComputeCapabilityMajor, device);
        Driver.cuDeviceGetAttribute(out int minor, Driver.ComputeCapabilityMinor, device);
        Driver.cuDeviceGetAttribute(out int processors, Driver.MultiprocessorCount, device);
        Driver.cuDriverGetVersion(out int driver);
        DriverVersion = $"CUDA {driver / 1000}.{driver % 1000 / 10}{KernelModule()}";
        Capability = major * 10 + minor;
        Processors = processors;
        byte* name = stackalloc byte[128];
        CudaException.Check(Driver.cuDeviceGetName(name, 128, device), nameof(Driver.cuDeviceGetName));
        Name = System.Runtime.InteropServices.Marshal.PtrToStringUTF8((nint)name) ?? "GPU";
        _context = PrimaryContext.Retain(device);
        try
        {
            MakeCurrent();
            // The default of 1,024 bytes a thread reserves 200 MiB on an H100; the driver raises it for a kernel that
            // needs more. A driver that refuses keeps its own.
            _ = Driver.cuCtxSetLimit(Driver.LimitStackSize, 256);
            Main = CudaStream.Create();
            Side = CudaStream.Create();
        }
        catch
        {
            Main?.Dispose();
            Release();
            throw;
        }
        Hopper = Capability == 90 && driver >= 12000;
        _compiler = new KernelCompiler(
            $"sm_{Capability}{(Hopper ? "a" : "")}", driver, new CubinCache(Path.Combine(HeadroomCache.Folder, "cubin"))
        );
    }

    public string Name { get; }
    public int Capability { get; }
    public int Processors { get; }
    /// <summary>Kernels are compiled for sm_90a: warpgroup products and bulk tensor copies are at hand.</summary>
    public bool Hopper { get; }
    /// <summary>The stream all ops run on.</summary>
    public CudaStream Main { get; }
    /// <summary>The stream of weight expansions ahead of their product.</summary>
    public CudaStream Side { get; }
    /// <summary>Launches so far.</summary>
    public long Launches { get; private set; }
    /// <summary>
    /// When set, every launch and product is timed alone (the stream is drained), by name: count and milliseconds.
    /// </summary>
    public Dictionary<string, (int Count, double Milliseconds)>? Profile { get; set; }

    /// <summary>When set, takes every kernel that is launched; for tests.</summary>
    public HashSet<nint>? Seen { get; set; }
    /// <summary>
    /// What <see cref="Seen"/> has taken: source file, activation type it was compiled for, RANK or HEAD (0 = none),
    /// name.
    /// </summary>
    public IEnumerable<(string File, DType Act, int Size, string Name)> Launched =>
        _functions.Where(f => Seen?.Contains(f.Value) == true).Select(f => f.Key);

    /// <summary>Set while launches are recorded and not run.</summary>
    public bool Recording { get; set; }

    private readonly Dictionary<nint, string> _names = [];
    private CudaEvent? _from, _to;

    private enum Issue : byte { Nothing, Kernel, Product, Replay }

    // Numbers, since this is noted at every launch; LastOperation makes the words of them when something failed.
    private (Issue Kind, nint Kernel, int M, int N, int K) _last;

    /// <summary>What was issued last (a kernel's name, a product's shape, a recorded micro-step), or null.</summary>
    public string? LastOperation => _last.Kind switch
    {
        Issue.Kernel => _names[_last.Kernel],
        Issue.Product => Product(_last.M, _last.N, _last.K),
        Issue.Replay => $"a recorded micro-step of {_last.M} tokens",
        _ => null,
    };

    /// <summary>A product [m, k] x [k, n] in words.</summary>
    public static string Product(int m, int n, int k) => $"product {m}x{n}x{k}";

    /// <summary>Notes a product as the operation issued last.</summary>
    public void IssuedProduct(int m, int n, int k) => _last = (Issue.Product, 0, m, n, k);

    /// <summary>Notes the replay of a recorded micro-step as the operation issued last.</summary>
    public void IssuedReplay(int tokens) => _last = (Issue.Replay, 0, tokens, 0, 0);

    /// <summary>Runs an issue of work on the main stream under the profile, when there is one.</summary>
    public void Timed(string name, Action issue)
    {
        _from ??= CudaEvent.Create(timed: true);
        _to ??= CudaEvent.Create(timed: true);
        _from.Record(Main);
        issue();
        _to.Record(Main);
        var (count, ms) = Profile!.GetValueOrDefault(name);
        Profile![name] = (count + 1, ms + _from.To(_to));
    }

    /// <summary>The context belongs to a thread; callers may come from any.</summary>
    public void MakeCurrent()
    {
        if (t_current == _context.Value) return;
        CudaException.Check(Driver.cuCtxSetCurrent(_context.Value), nameof(Driver.cuCtxSetCurrent));
        t_current = _context.Value;
        CudaException.Watch(this);
    }

    /// <summary>
    /// <see cref="MakeCurrent"/> for threads of the pool, which outlive devices: nothing is remembered, for a later
    /// device can have the same context handle.
    /// </summary>
    public void MakeCurrentOnce() =>
        CudaException.Check(Driver.cuCtxSetCurrent(_context.Value), nameof(Driver.cuCtxSetCurrent));

    /// <summary>
    /// A kernel of a file compiled for an activation type (and a size, 0 = none, passed as RANK and HEAD).
    /// </summary>
    public nint Kernel(string file, DType act, string name, int size = 0)
    {
        if (_functions.TryGetValue((file, act, size, name), out nint f)) return f;
        f = Module(file, act, size).Function(name);
        _names[f] = name;
        return _functions[(file, act, size, name)] = f;
    }

    /// <summary>The dropout that the kernels of a file, compiled so, read.</summary>
    public DropoutState DropoutState(string file, DType act, int size)
    {
        if (_dropout.TryGetValue((file, act, size), out var state)) return state;
        var module = Module(file, act, size);
        return _dropout[(file, act, size)] = new DropoutState(
            this, module.Global("dropout_step"), module.Global("dropout_keys"));
    }

    /// <summary>The dropout of every module in use.</summary>
    public void SetDropout(ulong seed, uint step)
    {
        foreach (var state in _dropout.Values) state.Set(seed, step);
    }

    private CudaModule Module(string file, DType act, int size)
    {
        MakeCurrent();
        if (_modules.TryGetValue((file, act, size), out var module)) return module;
        return _modules[(file, act, size)] = CudaModule.Load(
            _compiler.Cubin(file, act, size == 0 ? [] : [$"-DRANK={size}", $"-DHEAD={size}"]));
    }

    /// <summary>
    /// Throws while launches are recorded: what follows would be fixed in the record, or wait for work that does not
    /// run.
    /// </summary>
    public void OutsideRecord()
    {
        if (Recording)
            throw new InvalidOperationException(
                "a recorded micro-step copies nothing from or to the host, and has one dropout step and one gradient "
                    + "scale"
            );
    }

    /// <summary>Lets a kernel use more than 48 KB of shared memory.</summary>
    public static void AllowShared(nint kernel, int bytes) =>
        CudaException.Check(
            Driver.cuFuncSetAttribute(kernel, Driver.FuncMaxDynamicShared, bytes), nameof(Driver.cuFuncSetAttribute));

    /// <summary>Launches on the main stream.</summary>
    public void Launch(nint kernel, (int X, int Y) grid, int block, params ReadOnlySpan<Arg> args) =>
        LaunchOn(Main, kernel, grid, block, 0, args);

    /// <summary>Launches on a stream with dynamic shared memory.</summary>
    public void LaunchOn(
        CudaStream stream, nint kernel, (int X, int Y) grid, int block, int shared, params ReadOnlySpan<Arg> args
    ) => LaunchOn(stream, kernel, grid, 1, block, shared, args);

    /// <summary>Launches on a stream over a grid of three dimensions.</summary>
    public void LaunchOn(
        CudaStream stream, nint kernel, (int X, int Y) grid, int gridZ, int block, int shared,
        params ReadOnlySpan<Arg> args)
    {
        if (grid.X <= 0 || grid.Y <= 0) return;
        void** parameters = stackalloc void*[args.Length];
        fixed (Arg* p = args)
        {
            for (int i = 0; i < args.Length; i++) parameters[i] = Arg.Place(p + i);
            if (Profile != null)
            {
                if (stream == Side) Side.Wait(Mark()); // the profile runs everything in one line
                _from ??= CudaEvent.Create(timed: true);
                _to ??= CudaEvent.Create(timed: true);
                _from.Record(stream);
            }
            Seen?.Add(kernel);
            int status = Driver.cuLaunchKernel(
                kernel, (uint)grid.X, (uint)grid.Y, (uint)gridZ, (uint)block, 1, 1, (uint)shared, stream.Value,
                parameters, null);
            if (status != 0) throw CudaException.Make(status, $"{nameof(Driver.cuLaunchKernel)} of {_names[kernel]}");
            _last = (Issue.Kernel, kernel, 0, 0, 0);
        }
        if (Profile != null)
        {
            _to!.Record(stream);
            var (count, ms) = Profile.GetValueOrDefault(_names[kernel]);
            Profile[_names[kernel]] = (count + 1, ms + _from!.To(_to));
        }
        Launches++;
    }

    private CudaEvent Mark()
    {
        var e = CudaEvent.Create();
        e.Record(Main);
        return e;
    }

    /// <summary>
    /// Blocks for <paramref name="count"/> elements at <paramref name="each"/> a block, at most eight waves.
    /// </summary>
    public int Blocks(long count, int each) => (int)Math.Clamp((count + each - 1) / each, 1, Processors * 16L);

    public void Dispose()
    {
        if (_disposed) return;
        _disposed = true;
        MakeCurrent();
        foreach (var m in _modules.Values) m.Dispose();
        _from?.Dispose();
        _to?.Dispose();
        Main.Dispose();
        Side.Dispose();
        Release();
    }

    private void Release()
    {
        _context.Dispose();
        t_current = 0;
        CudaException.Watch(null);
    }
}
