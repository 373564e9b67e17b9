using Headroom.Core;
using Headroom.Cuda.Resources;
using Headroom.Tests;

namespace Headroom.Cuda.Tests;

/// <summary>Compiled kernels that are kept: a damaged file is compiled anew, for the driver must not see it.</summary>
public sealed class CubinCacheTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("headroom-cubins-").FullName;

    public void Dispose() => Directory.Delete(_folder, true);

    // Every way in which a file can be damaged: its bytes, or null = a folder lies in its place.
    private static IEnumerable<byte[]?> Damaged(byte[] whole)
    {
        yield return [];
        yield return whole[..1];
        yield return whole[..32];
        yield return whole[..^1];
        yield return [.. whole, 0];
        foreach (int at in new[] { 0, whole.Length / 2, whole.Length - 1 })
        {
            byte[] other = [.. whole];
            other[at] ^= 1;
            yield return other;
        }
        yield return null;
    }

    [Fact]
    public void WhatIsNotWholeIsNotThere()
    {
        var cache = new CubinCache(Path.Combine(_folder, "cubin"));
        byte[] cubin = [.. Enumerable.Range(0, 100).Select(i => (byte)i)];
        Assert.Null(cache.Read("k"));
        cache.Write("k", cubin);
        Assert.Equal(cubin, cache.Read("k"));
        string file = Assert.Single(Directory.GetFiles(Path.Combine(_folder, "cubin")));
        foreach (byte[]? damaged in Damaged(File.ReadAllBytes(file)))
        {
            File.Delete(file);
            if (damaged == null) Directory.CreateDirectory(file);
            else File.WriteAllBytes(file, damaged);
            Assert.Null(cache.Read("k"));
            cache.Write("k", cubin);
            Assert.Equal(damaged == null ? null : cubin, cache.Read("k")); // a folder in its place is left alone
        }
        var nowhere = new CubinCache(Path.Combine(_folder, "cubin", "x"));
        File.WriteAllText(Path.Combine(_folder, "cubin", "x"), ""); // a file where the cache's folder would be
        nowhere.Write("k", cubin);
        Assert.Null(nowhere.Read("k"));
    }

    [Fact]
    public void ADamagedCubinIsCompiledAnewAndLoads()
    {
        using var device = TestDevice.OpenCuda();
        device.Gpu.MakeCurrent();
        KernelCompiler Compiler() => new($"sm_{device.Capability}", 0, new CubinCache(_folder));
        foreach (int expected in new[] { 1, 0 })
        {
            var compiler = Compiler();
            compiler.Cubin("optimizer.cu", DType.F32);
            Assert.Equal(expected, compiler.Compiled);
        }
        string file = Assert.Single(Directory.GetFiles(_folder));
        File.WriteAllBytes(file, File.ReadAllBytes(file)[..1000]);
        var healed = Compiler();
        using (var module = CudaModule.Load(healed.Cubin("optimizer.cu", DType.F32))) Assert.NotEqual(0, module.Value);
        Assert.Equal(1, healed.Compiled);
        var again = Compiler();
        again.Cubin("optimizer.cu", DType.F32);
        Assert.Equal(0, again.Compiled);
    }
}
